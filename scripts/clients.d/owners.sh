# User namespaces: what a container sees of owners when its numbers are others.

# Runs a container with these words, works in it, and compares what it sees.
with_mapping() { # LIST WORDS...
    local list=$1; shift
    podman run -d --name c "$@" base sleep 1000 || fail "podman run $*"
    podman exec c cat /proc/self/uid_map
    podman exec --user 0 c sh -c 'echo 1 >/data/mine && mkdir -m 750 /data/mydir && mv /data/mine /data/mydir && chown 12:34 /data/append &&
        rm -rf /data/d2 && mkdir /data/d2 && ln /data/h1 /data/h9 && mkfifo /data/ff && stat -c %u:%g /data/mydir'
    podman exec --user 0 c tree / >"$list.list"
    compare_list "$list" "$list.list"
    podman stop -t 0 c
    podman start c
    podman exec --user 0 c tree / >"$list.list"
    compare_list "$list" "$list.list"
}

step rootless,ref,ci 60 keep_id "--userns=keep-id"
step_keep_id() {
    with_mapping keep-id --userns=keep-id
    same "who one is" "$(podman exec c id -u)" "$(id -u)"
    podman exec c sh -c 'touch /tmp/f && stat -c %u /tmp/f'
}

# podman 4.3.1 as root mounts the layers with an id mapping of the kernel's and
# tells the mount program to map once more, so that no owner fits (later versions
# do not). Without id-mapped mounts it does as later versions; what it does by
# itself is a step too.
without_double_mapping() {
    [ "$MODE" = root ] && [ -n "$MOUNT_PROGRAM" ] || return 0
    forget_idmap
    podman() { "$HERE/without-idmap" /usr/bin/podman "$@"; }
}
# podman keeps what it found out about them.
forget_idmap() {
    rm -f "$RUN"/store/overlay/idmapped-lower-dir-*
}

step any,ref,ci 60 uidmap "--uidmap"
step_uidmap() {
    without_double_mapping
    if [ "$MODE" = rootless ]; then
        with_mapping uidmap --uidmap 0:1:5000 --gidmap 0:1:5000
    else
        with_mapping uidmap --uidmap 0:200000:65536 --gidmap 0:200000:65536
    fi
}

step any,ref,ci 60 userns_auto "--userns=auto"
step_userns_auto() {
    without_double_mapping
    with_mapping userns-auto --userns=auto:size=5000
}

step any,ref 60 two_mappings "two containers with different mappings on one image"
step_two_mappings() {
    without_double_mapping
    local words=()
    [ "$MODE" = rootless ] || words=(--uidmap 0:300000:65536 --gidmap 0:300000:65536)
    [ "$MODE" = root ] || words=(--uidmap 0:1:6000 --gidmap 0:1:6000)
    podman run -d --name one base sleep 1000
    podman run -d --name two "${words[@]}" base sleep 1000 || fail "podman run ${words[*]}"
    podman exec one sh -c 'echo one >/data/append'
    podman exec two sh -c 'echo two >/data/append; chown 5:6 /data/append'
    same one "$(podman exec one cat /data/append)" one
    same two "$(podman exec two sh -c 'cat /data/append; stat -c %u:%g /data/append')" "two
5:6"
}

step root,fuse 60 uidmap_twice "--uidmap as podman 4.3.1 does it by itself: mapped twice"
step_uidmap_twice() {
    logged_program
    forget_idmap
    if podman run --rm --uidmap 0:200000:65536 base true; then
        podman run -d --name c --uidmap 0:200000:65536 base sleep 1000
        same "owner" "$(podman exec c stat -c %u /data/f-new /data/owned 2>/dev/null | tail -n 1)" 1234
        return
    fi
    grep -q 'lowerdir=[^,]*/mapped/[^ ]*uidmapping=' argv || fail "podman run --uidmap"
    known "podman maps the layers and asks the mount program to map them again"
}
