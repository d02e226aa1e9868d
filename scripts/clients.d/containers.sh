# Containers: what everybody does with podman every day.

step any,ref,ci,always 60 import "podman import; the image's listing"
step_import() {
    podman import -q "$T/base.tar" base
    image_list import base
}

step any,fuse,ci 30 info "podman info names the program and its version"
step_info() {
    local options
    options=$(podman info --format '{{range $k, $v := .Store.GraphOptions}}{{$k}}={{$v}} {{end}}')
    has "podman info" "$options" "$MOUNT_PROGRAM"
    has "podman info" "$options" "fuse-overlayfs: version"
}

step any,ref,ci 60 run "run: output, exit code, changes, --user, --workdir, --read-only"
step_run() {
    same output "$(podman run --rm base cat /data/d1/f3)" "base d1/f3"
    local rc=0; podman run --rm base sh -c 'exit 7' || rc=$?
    same "exit code" $rc 7
    same "user" "$(podman run --rm --user app -w /home/app base sh -c 'touch f && stat -c %u:%g:%n f')" 1234:4321:f
    must_fail podman run --rm --user app base cat /data/mode0
    must_fail podman run --rm --read-only base touch /data/new
    podman run --rm --read-only --tmpfs /data/d1 base sh -c 'touch /data/d1/new; grep -q " /data/d1 tmpfs" /proc/mounts'
    podman run --rm base changes
}

step any,ref,ci 90 exec_stop_start "run -d, exec, stop, start: the changes are still there"
step_exec_stop_start() {
    podman run -d --name c base sleep 1000
    podman exec c changes
    inside_list exec c
    podman exec c tree /data >data.list
    compare_list data data.list
    podman stop -t 0 c
    container_list stopped c
    podman start c
    inside_list exec c
    podman exec c sh -c 'rm -rf /data/d2 && mkdir /data/d2 && echo 3 >/data/d2/third; mv /data/d5 /data/d6'
    podman restart -t 0 c
    inside_list restarted c
}

step any,ref,ci 90 commit "commit: the image is the container"
step_commit() {
    podman run --name c base changes
    podman commit -q c committed
    image_list committed committed
    podman run --rm committed tree / >inside.list
    compare_list inside-committed inside.list
    # Not here: deleting one of several links in a layer of its own (layers say
    # nothing about the others), and replacing a directory that has extended
    # attributes (vfs keeps the old ones).
    podman run --name d committed sh -c 'rm /data/plain; echo second >>/data/append; rm -rf /data/d2; mkdir /data/d2'
    podman commit -q d committed2
    image_list committed2 committed2
    podman run -d --name e committed2 sleep 1000
    inside_list inside-committed2 e
}

step any,ref,ci 60 diff "diff, also behind renames, while running and stopped; ps --size"
step_diff() {
    # `podman diff NAME` takes NAME for the beginning of an image's ID before it
    # looks for a container (getLayerID() in its libpod/diff.go): a container called
    # "c" gives the changes of whatever image has an ID that begins with c. No ID
    # has these letters.
    podman run -d --name works base sleep 1000
    podman exec works changes
    podman diff works | sort >diff.list
    compare_list diff diff.list
    podman exec works sh -c 'cd /data; mv d5 d7; mv d7/keep d1/kept; mv sticky sticky2; touch d1/again && rm d1/again'
    podman diff works | sort >diff2.list
    compare_list diff-running diff2.list
    podman stop -t 0 works
    podman diff works | sort >diff3.list
    compare_list diff-running diff3.list
    podman ps -a --size --format '{{.Names}} {{.Size}}' | grep '^works '
}

step any,ref,ci 60 export "export: the tar holds what the container shows"
step_export() {
    podman run --name c base changes
    podman export -o c.tar c
    mkdir out
    as_container_root sh -c 'tar --xattrs --xattrs-include="*" --numeric-owner -xpf c.tar -C out && tree out >export.list && rm -rf out'
    compare_list export export.list
}

step any,ref 60 cp "cp into and out of containers, running and stopped"
step_cp() {
    podman run -d --name c base sleep 1000
    mkdir -p in/dir; echo 1 >in/dir/1; ln -s 1 in/dir/l; echo f >in/f; chmod 600 in/f
    podman cp in/f c:/data/d1/f1
    podman cp in/dir c:/data/d2
    podman cp in/. c:/data/new
    podman stop -t 0 c
    podman cp in/f c:/data/when-stopped
    container_list cp c
    podman cp c:/data/d3 out
    same "copied out" "$(cat out/a/b/c)" "base d3/a/b/c"
    podman cp c:/data/mode444 - | tar -tf - | grep -q mode444
}

step any,ref 60 mount "podman mount: changes from outside are seen inside"
step_mount() {
    podman run -d --name c base sleep 1000
    as_container_root sh -euc 'm=$(podman mount c); changes "$m/data"; podman umount c' || fail "changes through podman mount"
    inside_list mounted c
    podman rm -f -t 0 c
    podman create --name d base true
    as_container_root sh -euc 'm=$(podman mount d); echo out >"$m/data/out"; rm -r "$m/data/d1"; podman umount d'
    container_list mounted-created d
}

step any,ref,ci 60 copy_up_volume "a named volume takes over what the image has there"
step_copy_up_volume() {
    podman volume create v
    podman run --name c -v v:/data base changes
    podman run -d --name d -v v:/data base sleep 1000
    podman exec d tree /data >volume.list
    compare_list volume volume.list
}

step any,ref 60 prune "commit, rmi, system prune; df; the store stays whole"
step_prune() {
    podman run --name c base sh -c 'echo 1 >/data/one'
    podman commit -q c one
    podman rm c
    podman run --name d one sh -c 'rm -rf /data/d1'
    podman commit -q d two
    podman rm d
    podman system df
    podman rmi one two
    podman system prune -f
    podman image exists base
    image_list import base
}
