# docker, containerd's way of mounting, and podman inside of a container.

# dockerd for this step, with the storage driver that belongs to ours.
start_dockerd() {
    local driver=fuse-overlayfs
    case $DRIVER in vfs) driver=vfs ;; kernel) driver=overlay2 ;; esac
    dockerd --storage-driver "$driver" --iptables=false --ip6tables=false --bridge=none \
        --data-root "$PWD/docker" --exec-root "$RUN/docker" -p "$RUN/docker.pid" -H "unix://$RUN/docker.sock" >dockerd.log 2>&1 &
    DOCKERD=$!
    trap 'kill $DOCKERD; wait $DOCKERD || true' EXIT
    export DOCKER_HOST=unix://$RUN/docker.sock DOCKER_BUILDKIT=0
    until_true 60 docker version >/dev/null 2>&1
    same "docker's driver" "$(docker info --format '{{.Driver}}')" "$driver"
}
docker_list() { # NAME CONTAINER
    mkdir "$1.d"
    docker export "$2" | tar -C "$1.d" --xattrs --xattrs-include='*' --numeric-owner -xpf -
    rm -f "$1.d/.dockerenv"
    tree "$1.d" >"$1.list"
    rm -rf "$1.d"
    compare_list "$1" "$1.list"
}

step root,ref,ci 200 docker "docker with the storage driver fuse-overlayfs: import, run, build, commit, diff"
step_docker() {
    start_dockerd
    docker import -q "$T/base.tar" base 2>/dev/null || docker import "$T/base.tar" base
    docker run --name c-c --network none base changes
    docker diff c-c | sort >diff.list
    compare_list docker-diff diff.list
    docker_list docker-run c-c
    docker commit c-c committed
    docker run --name c-d --network none committed tree / >committed.list
    compare_list docker-committed committed.list
    docker run -d --name c-e --network none committed sleep 1000
    docker exec c-e sh -c 'rm -rf /data/d2 && mkdir /data/d2 && echo 2 >/data/d2/second; mv /data/d1 /data/d8'
    docker stop -t 0 c-e; docker start c-e
    docker exec c-e tree / >restarted.list
    compare_list docker-restarted restarted.list
    docker rm -f c-c c-d c-e
    docker rmi committed
    # Too long for the five-minute part.
    [ -z "$CI_PART" ] || return 0
    containerfile
    sed -i 's|localhost/base|base|' ctx/Containerfile
    docker build -q --network none -t built -f ctx/Containerfile ctx
    docker run --name c-f --network none built tree / >built.list
    compare_list docker-built built.list
    docker rm -f c-f
    docker rmi built
}

step any,fuse,ci 60 mount_fuse3 "containerd's fuse-overlayfs snapshotter: mount.fuse3 with several -o"
step_mount_fuse3() {
    small_layers
    own_mounts '
        mount.fuse3 overlay m -o workdir=w -o upperdir=u -o lowerdir=l1:l2 -t fuse-overlayfs
        test "$(stat -f -c %t m)" = 65735546
        grep -q "^overlay .* fuse.fuse-overlayfs" <(grep " $PWD/m " /proc/mounts)
        cat m/one m/d/two
        rm m/one; echo new >m/new
        umount m
        test "$(ls u | tr "\n" " ")" = "new one " || test -e u/.wh.one
        mount.fuse3 overlay m -o lowerdir=l1:l2 -t fuse-overlayfs
        ! touch m/x
        umount m
    ' || fail "see the last command above"
}

# podman with this world's program in a container that podman made. The outer
# container sees the host's programs, and nothing of the host's /run and stores.
inner_root() {
    local at
    mkdir -p root/{etc/containers,proc,sys,dev,run,tmp,root,var/tmp,work,store} inner
    chmod 1777 root/tmp root/var/tmp
    HOST_PROGRAMS=()
    for at in usr bin sbin lib lib32 lib64; do
        if [ -L "/$at" ]; then ln -s "$(readlink "/$at")" "root/$at"
        elif [ -d "/$at" ]; then mkdir -p "root/$at"; HOST_PROGRAMS+=(-v "/$at:/$at:ro"); fi
    done
    cp "$WORLD/home/.config/containers/policy.json" root/etc/containers/
    echo root:x:0:0::/root:/bin/sh >root/etc/passwd
    echo root:x:0: >root/etc/group
    printf '%s\n' '[storage]' 'driver = "overlay"' 'graphroot = "/store"' 'runroot = "/run/s"' \
        '[storage.options.overlay]' 'mount_program = "/work/fuse-overlayfs"' >root/etc/containers/storage.conf
    sed '/^default_ulimits/d' "$WORLD/containers.conf" >root/etc/containers/containers.conf
    # argv[0] is what the program goes by.
    cp "$WORLD/bin/program" root/work/fuse-overlayfs
    cp "$T/base.tar" root/work/base.tar
    as_container_root chown -R 0:0 root inner
}

# Runs a script with podman set up, in a container whose root is an overlay.
inner_podman() { # SCRIPT WORDS...
    local script=$1; shift
    mkdir out
    as_container_root chown 0:0 out
    podman run --name outer --privileged --device /dev/fuse -v "$PWD/out:/out" "${HOST_PROGRAMS[@]}" "$@" --rootfs "$PWD/root:O" sh -euxc "
        export PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root
        podman info --format '{{.Store.GraphOptions}}' | grep -q /work/fuse-overlayfs
        podman import -q /work/base.tar base
        $script"
}

INNER_COMMIT='
    podman commit -q c committed
    m=$(podman image mount committed)
    test "$(stat -f -c %t "$m")" = 65735546
    podman image umount -a
    podman run --rm --cgroups=disabled committed tree / >/out/list'

step any,fuse,ci 120 nested "podman in a container made by podman, its store on a volume"
step_nested() {
    inner_root
    inner_podman "podman run --cgroups=disabled --name c base changes; $INNER_COMMIT" -v "$PWD/inner:/store" || fail "the podman inside"
    cp out/list nested.list
    compare_list inside-committed nested.list
    as_container_root rm -rf root inner out
}

step any,fuse 120 nested_on_overlay "the same with its store on the outer mount: an upper on an overlay"
step_nested_on_overlay() {
    local deleted
    inner_root
    inner_podman '
        podman run --cgroups=disabled --name c base sh -ec "
            cd /data; echo new >new; echo more >>append; mkdir dir; mv new dir/; ln append dir/again
            chown 12:34 ownedir; chmod 4711 suid; setfattr -n user.new -v x d5; tree /" >/out/before'"$INNER_COMMIT"'
        podman run --cgroups=disabled --name d base rm /data/append
        podman commit -q d deleted >/out/deleted 2>&1 || true' || fail "the podman inside"
    diff -u0 out/before out/list || fail "the image differs from its container"
    deleted=$(cat out/deleted)
    as_container_root rm -rf root inner out
    # The podman inside unpacks a layer with deletions as files called .wh.NAME,
    # which in every layer of a fuse-overlayfs are whiteouts: no mount shows them.
    case $deleted in *"/.wh.append: invalid argument"*) known "no file called .wh.NAME can be made in a mount: the store inside needs a volume for images with deletions" ;; esac
    case $deleted in *Error*) fail "$deleted" ;; esac
}
