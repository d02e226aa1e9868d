# The life of the mount program: how it starts, ends, dies and is started again.

step any,fuse,ci 60 storage_checks "what containers-storage asks of a mount program"
step_storage_checks() {
    small_layers
    echo held >held
    own_mounts '
        exec 8<held
        # The client reads stderr to its end: it must be closed once the mount stands.
        said=$(cd w/.. && timeout 20 "$MOUNT_PROGRAM" -o "lowerdir=l1:l2,upperdir=u,workdir=w,,volatile" "$PWD/m" 2>&1 >/dev/null) ||
            { echo "did not start, or held stderr: $said"; exit 1; }
        test "$(stat -f -c %t m)" = 65735546      # FUSE_SUPER_MAGIC
        grep -q 1 m/one && grep -q 2 m/d/two
        pid=$(pgrep -f "^$MOUNT_PROGRAM -o .*$PWD/m\$")
        test "$(readlink "/proc/$pid/cwd")" = /
        # Nothing of the caller is kept open: no descriptor, no session.
        ! ls -l "/proc/$pid/fd" | grep -q "$PWD/held"
        test "$(ps -o sid= "$pid" | tr -d " ")" != "$(ps -o sid= $$ | tr -d " ")"
        umount m
        for i in $(seq 50); do [ -e "/proc/$pid" ] || break; sleep 0.1; done
        test ! -e "/proc/$pid" || grep -q "^State:.Z" "/proc/$pid/status"
        # Without an upper it is read only.
        "$MOUNT_PROGRAM" -o lowerdir=l1:l2 m
        ! touch m/new
        umount m
        # What fails says why, and is not taken for a mount.
        if said=$("$MOUNT_PROGRAM" -o lowerdir=nowhere,upperdir=u,workdir=w m 2>&1 >/dev/null); then exit 1; fi
        test -n "$said"
        "$MOUNT_PROGRAM" --version | grep -q "fuse-overlayfs: version"
    ' || fail "see the last command above"
}

step any,fuse,ci 60 unmount_ways "fusermount3 -u; syncfs and MNT_DETACH: all data there, the next mount at once"
step_unmount_ways() {
    small_layers
    own_mounts '
        opts=lowerdir=l1:l2,upperdir=u,workdir=w
        for i in $(seq 20); do
            "$MOUNT_PROGRAM" -o $opts "$PWD/m"
            echo "$i" >>m/one
            head -c 3000000 /dev/zero | tr "\0" $((i % 10)) >m/big
            rm -rf m/d; mkdir m/d; echo "$i" >m/d/f
            if [ $((i % 2)) = 0 ]; then fusermount3 -u m; else sync -f m; umount -l m; fi
            # The client puts a new directory in its place; it cannot while a mount is there.
            mkdir m.1; mv -T m.1 m
            test "$(tail -n 1 u/one)" = "$i"; test "$(cat u/d/f)" = "$i"; test "$(stat -c %s u/big)" = 3000000
        done
        test "$(wc -l <u/one)" = 21
    ' || fail "see the last command above"
    podman run -d --name c base sleep 1000
    podman exec c changes
    podman stop -t 0 c
    as_container_root sh -euc 'm=$(podman mount c); echo late >"$m/data/late"; fusermount3 -u "$m"; podman umount --force c || true'
    podman start c
    same "late" "$(podman exec c cat /data/late)" late
}

# podman unmounts by MNT_DETACH where it must, and may want the upper again while
# somebody still writes into what it has detached. A mount program may wait, and
# refuse at last, or serve both; what is written must be there in the end.
step any,fuse,ci 90 remount_at_once "a second mount of an upper whose first daemon still lives (umount -l, an open file): no write is lost"
step_remount_at_once() {
    small_layers
    own_mounts '
        opts=lowerdir=l1:l2,upperdir=u,workdir=w
        # The writer ends while the next mount starts.
        "$MOUNT_PROGRAM" -o $opts "$PWD/m"
        exec 7>>m/log
        echo one >&7
        umount -l m
        { sleep 1; echo late >&7; } &
        exec 7>&-
        timeout 20 "$MOUNT_PROGRAM" -o $opts "$PWD/m"
        echo two >>m/log
        wait
        umount m
        test "$(sort u/log | tr "\n" " ")" = "late one two "

        # The writer stays.
        "$MOUNT_PROGRAM" -o $opts "$PWD/m"
        old=$(pgrep -f "^$MOUNT_PROGRAM -o .*$PWD/m\$")
        exec 7>>m/log2
        echo one >&7
        umount -l m
        wanted="late one "
        if timeout 20 "$MOUNT_PROGRAM" -o $opts "$PWD/m" 2>said; then
            echo two >>m/log2
            wanted="late one two "
        else
            grep "is in use by process $old" said
            # Since Linux 6.16 one can tell who keeps it.
            ! grep -qs ^fuse_connection: "/proc/$old/fdinfo/"* || grep "process $$ (bash) has open" said
        fi
        test -e "/proc/$old"
        echo late >&7
        exec 7>&-
        ! mountpoint -q m || umount m
        "$MOUNT_PROGRAM" -o $opts "$PWD/m"
        test "$(sort m/log2 | tr "\n" " ")" = "$wanted"
        umount m
    ' || fail "see the last command above"
}

# A copy of the mount in another namespace would keep the first daemon and its
# upper. containers-storage takes all of them away: it renames a new directory over
# the mount point, at which the kernel detaches what is mounted there in any
# namespace (vfs_rename() calls detach_mounts()). A container's root stands elsewhere.
step any,ci 60 held_elsewhere "stop and start while another mount namespace holds a copy of the mount"
step_held_elsewhere() {
    local i holder
    podman run -d --name c base sleep 1000
    podman exec c changes
    for i in 1 2; do
        as_container_root unshare -m --propagation private sh -c 'echo ready; exec sleep 100' >holder.out &
        holder=$!
        until_true 10 grep -q ready holder.out
        podman stop -t 0 c
        podman start c || fail "podman start while a copy of the mount is held"
        inside_list exec c
        kill "$holder" || true
        pkill -f 'sleep 100$' || true
        wait
    done
}

step any,fuse,ci 90 kill9 "kill -9 of the daemon: podman goes on with the same container and its data"
step_kill9() {
    local i
    podman run -d --name c base sleep 1000
    podman exec c changes
    for i in 1 2 3; do
        kill -9 "$(daemon_of c)"
        must_fail podman exec c cat /data/append
        podman stop -t 0 c || podman kill c || true
        podman start c || podman start c
        inside_list exec c
    done
    podman commit -q c killed
    image_list committed killed
    podman exec c sh -c 'echo more >/data/more'
    same "written after that" "$(podman exec c cat /data/more)" more
}

step any,ci 240 fifty "50 containers started and removed at once"
step_fifty() {
    local i pids=() n=50
    [ -z "$CI_PART" ] || n=12
    for i in $(seq "$n"); do
        podman run --rm base sh -c "echo $i >>/data/append; rm -rf /data/d2; mkdir /data/d2; echo $i >/data/d2/n; cat /data/append /data/d2/n; ls /data/d2" >"out.$i" 2>"err.$i" &
        pids+=($!)
    done
    for i in $(seq "$n"); do
        wait "${pids[i - 1]}" || fail "container $i: $(cat "err.$i")"
        same "container $i" "$(tr '\n' ' ' <"out.$i")" "base append $i $i n "
    done
    same "containers left" "$(podman ps -aq)" ""
    nothing_left
}

nothing_left() {
    until_true 15 no_daemon
    same "mounts left" "$(as_container_root grep -c "$WORLD/graph/overlay/.*/merged " /proc/self/mountinfo)" 0
}
no_daemon() { [ -z "$(daemons)" ]; }

step any 200 many_layers "an image of 128 layers, with deletions and replaced directories"
step_many_layers() {
    local i
    mkdir -p oci/blobs/sha256 flat
    # podman 4.3.1 takes no more than 128: these and the one committed on top.
    for i in $(seq 127); do
        mkdir -p "l/d/sub$i" "l/each"
        [ "$i" -gt 1 ] || cp "$(command -v busybox)" "$T/bin/tree" l/
        echo "$i" | tee l/counter "l/each/$i" "l/d/sub$i/f" >/dev/null
        [ "$i" -le 3 ] || { : >"l/each/.wh.$((i - 3))"; rm "flat/each/$((i - 3))"; }
        [ $((i % 10)) != 0 ] || { : >l/d/.wh..wh..opq; rm -rf flat/d; }
        find l -type f -exec touch -d '2001-02-03 UTC' {} +
        layer l
        cp -a l/. flat/; find flat -name '.wh.*' -delete
        rm -rf l
    done
    finish_image deep
    podman tag "$(podman pull -q oci:oci)" deep
    (as_container_root tree flat) | sed "s/ $(id -u):$(id -g) / 0:0 /; s/ $(id -u):$(id -g)\$/ 0:0/" >wanted.list
    as_container_root sh -c 'd=$(podman image mount deep) && tree "$d" && podman image umount deep >&2' >deep.list
    diff -u0 wanted.list deep.list || fail "the tree of 127 layers differs"
    podman run --name c deep /busybox sh -c '/busybox cat /counter; /busybox rm -r /d; /busybox mkdir /d; echo top >/d/top; /busybox mv /each /each2' >out
    same counter "$(cat out)" 127
    podman commit -q c deep2
    same "on top" "$(podman run --rm deep2 /busybox sh -c '/busybox ls /d /each2; ! /busybox ls /each 2>/dev/null' | tr '\n' ' ')" "/d: top  /each2: 125 126 127 "
}

step any,always,ci 60 nothing_left "no process and no mount of the program is left"
step_nothing_left() { nothing_left; }
