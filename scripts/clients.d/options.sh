# Option words of storage.conf that reach the mount program, and what they do.

# From here on the store is used with these mount options.
with_mountopt() { # WORDS
    sed "/^mountopt/d; s|^mount_program.*|&\nmountopt = \"$1\"|" "$WORLD/storage.conf" >storage.conf
    export CONTAINERS_STORAGE_CONF=$PWD/storage.conf
}

# Starts to watch what the daemon of container c asks of the disk.
watch_syncs() {
    DAEMON=$(daemon_of c)
    as_container_root strace -f -qq -e trace=fsync,fdatasync,syncfs,sync_file_range -o "$PWD/trace" -p "$DAEMON" 2>strace.err &
    until_true 10 being_traced "$DAEMON"
}
# How many times, while this runs in the container.
syncs_during() { # SCRIPT
    local tracer
    watch_syncs
    podman exec c sh -euc "$1" || fail "in the container: $1"
    tracer=$(awk '/^TracerPid/ {print $2}' "/proc/$DAEMON/status")
    as_container_root kill -INT "$tracer"
    wait
    grep -c 'sync' trace || true
}
# How many times, while the container goes and the mount with it.
syncs_at_end() {
    watch_syncs
    podman rm -f -t 0 c >&2
    wait
    grep -c 'sync' trace || true
}
being_traced() { ! grep -q '^TracerPid:.0$' "/proc/$1/status"; }

# Three times fsync(2).
SYNCS='cd /data; echo 1 >>append; busybox dd if=/dev/zero of=new bs=4k count=8 conv=fsync 2>/dev/null
    echo 2 >>d1/f3; mv d3 d3b; rm -rf d2; mkdir d2
    for f in append d1/f3; do busybox dd if=/dev/null of=$f conv=fsync,notrunc 2>/dev/null; done; sync'

step any,fuse,ci 60 volatile "volatile (podman run --rm) really skips syncs; without it they are made"
step_volatile() {
    podman run -d --rm --name c base sleep 1000
    same "syncs with volatile" "$(syncs_during "$SYNCS")" 0
    same "syncs at the end with volatile" "$(syncs_at_end)" 0
    podman run -d --name c base sleep 1000
    [ "$(syncs_during "$SYNCS")" -gt 2 ] || fail "without volatile: only $(cat trace)"
    # The kernel's overlayfs syncs the upper when it is unmounted, and so do we; others
    # promise nothing.
    [ "$(syncs_at_end)" -gt 0 ] || [ "$DRIVER" != acetate ] || fail "without volatile: none at the end"
}

step any,fuse 60 fsync_0 "fsync=0 skips syncs too"
step_fsync_0() {
    with_mountopt "nodev,fsync=0"
    podman run -d --name c base sleep 1000
    same "syncs with fsync=0" "$(syncs_during "$SYNCS")" 0
}

step any,fuse,ci 60 noacl "noacl: ACLs are refused; without it they work"
step_noacl() {
    podman run --rm base sh -euc 'setfacl -m u:1234:rw /data/append; getfacl -n /data/append | grep -q ^user:1234:rw-'
    with_mountopt "nodev,noacl"
    podman run --rm base sh -c 'setfacl -m u:1234:rw /data/append' 2>err && fail "setfacl works with noacl"
    has "setfacl's message" "$(cat err)" "not supported"
}

step any,fuse,ci 60 timeout "timeout=: how long changes made behind the mount's back stay unseen"
step_timeout() {
    local upper
    with_mountopt "nodev,timeout=0"
    podman run -d --name c base sh -c 'chmod 640 /data/append; sleep 1000'
    until_true 10 mode_is 640
    upper=$(podman inspect --format '{{.GraphDriver.Data.UpperDir}}' c)
    as_container_root chmod 600 "$upper/data/append"
    same "with timeout=0" "$(podman exec c stat -c %a /data/append)" 600
    podman rm -f -t 0 c
    with_mountopt "nodev,timeout=1"
    podman run -d --name c base sh -c 'chmod 640 /data/append; sleep 1000'
    until_true 10 mode_is 640
    upper=$(podman inspect --format '{{.GraphDriver.Data.UpperDir}}' c)
    as_container_root chmod 600 "$upper/data/append"
    sleep 1.2
    same "with timeout=1" "$(podman exec c stat -c %a /data/append)" 600
}
mode_is() { [ "$(podman exec c stat -c %a /data/append)" = "$1" ]; }

step any,fuse,ci 60 squash "squash_to_root, squash_to_uid, squash_to_gid: everything has that owner"
step_squash() {
    with_mountopt "nodev,squash_to_root"
    same "squash_to_root" "$(podman run --rm base sh -c 'cd /data && stat -c %u:%g append owned ownedir/in /home/app . | sort -u')" 0:0
    with_mountopt "nodev,squash_to_uid=77,squash_to_gid=88"
    same "squash_to_uid" "$(podman run --rm base sh -c 'cd /data && touch new && stat -c %u:%g new append owned ownedir/in . | sort -u')" 77:88
    with_mountopt "nodev,squash_to_root,squash_to_uid=5"
    same "both" "$(podman run --rm base sh -c 'stat -c %u:%g /data/owned')" 5:0
}

step any,fuse 60 other_words "words of the kernel's and of mount(8) in mountopt do no harm"
step_other_words() {
    with_mountopt "nodev,metacopy=on,lazytime,noatime,redirect_dir=on,xino=on,userxattr,static_nlink"
    podman run -d --name c base sleep 1000
    podman exec c changes
    inside_list exec c
}

# A store with owners and modes in extended attributes, for this step only.
masked_store() { # MASK
    export XDG_RUNTIME_DIR=$RUN/$1 CONTAINERS_STORAGE_CONF=$PWD/storage.conf
    mkdir -p -m 700 "$XDG_RUNTIME_DIR"
    sed "s|^graphroot.*|graphroot = \"$PWD/$1\"|; s|^rootless_storage_path.*|rootless_storage_path = \"$PWD/$1\"|
        s|^runroot.*|runroot = \"$RUN/$1/store\"|; s|^mount_program.*|&\nforce_mask = \"$1\"|" "$WORLD/storage.conf" >storage.conf
    trap 'podman rm -fa -t 0; podman image umount -fa' EXIT
}

force_mask() { # MASK MODE
    local plain
    # podman 4.3.1 sets the attribute on fifos too, which no file system takes,
    # and leaves the suid, sgid and sticky bits out of it when it unpacks a layer.
    LIST_FILTER='s/^([^ ]+ [dflp] )[0-7]([0-7]{3} )/\1\2/'
    cp "$T/base.tar" base.tar
    tar --delete -f base.tar ./data/pipe
    if [ "$DRIVER" != vfs ]; then masked_store "$1"; fi
    podman import -q base.tar masked
    [ "$DRIVER" = vfs ] || getfattr -n user.containers.override_stat "$1"/overlay/*/diff/tmp
    image_list masked masked
    if [ "$DRIVER" != vfs ]; then
        plain=$(find "$1/overlay" -path '*/diff/*' -type f ! -name '.wh.*' ! -perm "$2" | head)
        same "files unpacked that are not $2" "$plain" ""
    fi
    podman run --name c masked sh -c 'changes && rm /data/fifo'
    if [ "$DRIVER" = vfs ]; then
        podman commit -q c masked2
        image_list masked-committed masked2
        return
    fi
    podman commit -q c committed
    image_list masked-committed committed
    podman run -d --name d committed sleep 1000
    podman exec d sh -euc 'touch /tmp/x; chown 12:34 /tmp/x; chmod 4711 /tmp/x; stat -c "%F %a %u:%g" /tmp/x' >out
    same "made in it" "$(cat out)" "regular empty file 4711 12:34"
    # The kernel lets root of the whole machine alone make a device node, whatever
    # the file system (vfs_mknod() in fs/namei.c: capable(CAP_MKNOD)).
    if [ "$MODE" = root ]; then
        same "a device" "$(podman exec d sh -c 'mknod /tmp/dev c 1 3 && stat -c "%F %a" /tmp/dev')" "character special file 644"
    else
        must_fail podman exec d mknod /tmp/dev c 1 3
    fi
    same "on disk" "$(find "$1/overlay" -path '*/diff/tmp/x' -exec getfattr --only-values -n user.containers.override_stat {} + | cut -d: -f1-3)" 12:34:4711
    podman exec d tree / >inside.list
    ! grep override inside.list || fail "the attribute shows"
}

step any,ref,fuse,ci 90 force_mask_shared "force_mask=shared: owners and modes in attributes, listings as ever"
step_force_mask_shared() { force_mask shared 0755; }

step any,fuse 90 force_mask_0700 "force_mask=0700, as podman wants it on network file systems"
step_force_mask_0700() { force_mask 0700 0700; }

step any,fuse,ci 60 xattr_permissions "xattr_permissions=2 without a client: attribute written, hidden, read again"
step_xattr_permissions() {
    small_layers
    own_mounts '
        opts=lowerdir=l1:l2,upperdir=u,workdir=w,xattr_permissions=2
        "$MOUNT_PROGRAM" -o $opts m
        touch m/f; chown 12:34 m/f; chmod 4750 m/f; mkfifo -m 600 m/p; mkdir -m 1777 m/t; chmod 600 m/one
        ls -ln m >before; ! getfattr -d -m - m/f | grep -q override
        getfattr --only-values -n user.containers.override_stat u/f | grep -q "^12:34:4750"
        test -f u/p && getfattr --only-values -n user.containers.override_stat u/p | grep -q ":600:pipe"
        umount m
        "$MOUNT_PROGRAM" -o $opts m
        ls -ln m >after
        umount m
        cmp before after
        grep -q "^-rwsr-x--- 1 12 34 .* f\$" after && grep -q "^prw------- .* p\$" after
    ' || fail "see the last command above"
}
