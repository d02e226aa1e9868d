# buildah: builds with either isolation, and containers worked on by hand.

# With the isolation chroot there is no network namespace to be made.
bud() { # ISOLATION WORDS...
    local words=(--isolation "$1" --network none)
    [ "$1" != chroot ] || words=(--isolation chroot --network host)
    shift
    buildah bud -q "${words[@]}" "$@"
}

bud_both_ways() { # ISOLATION
    containerfile
    bud "$1" --layers -t layered ctx
    image_list built layered
    bud "$1" --layers=false -t flat ctx
    image_list built-one flat
}

step any,ref 200 buildah_default "buildah bud, default isolation, with layers and without"
step_buildah_default() {
    bud_both_ways "$([ "$MODE" = root ] && echo oci || echo rootless)"
}

step any,ref 200 buildah_chroot "buildah bud, isolation chroot, with layers and without"
step_buildah_chroot() {
    bud_both_ways chroot
}

step any,ref,ci 90 buildah_by_hand "buildah from, run, copy --chown, config, mount, commit"
step_buildah_by_hand() {
    local c
    mkdir -p add/d; echo 1 >add/f; echo 2 >add/d/g
    c=$(buildah from localhost/base)
    buildah run --network none "$c" -- changes
    buildah copy --chown 12:34 "$c" add /data/added
    buildah add --chmod 640 "$c" add/f /data/d1/f2
    buildah config --entrypoint '["cat"]' --cmd /data/added/f "$c"
    as_container_root sh -euc 'm=$(buildah mount "$1"); rm -rf "$m/data/tree"; mkdir "$m/data/tree"; echo m >"$m/data/tree/m"; mv "$m/data/sticky" "$m/data/unsticky"; buildah umount "$1" >&2' - "$c"
    buildah run --network none "$c" -- tree / >by-hand.list
    compare_list by-hand-inside by-hand.list
    buildah commit -q "$c" by-hand
    image_list by-hand by-hand
    same "the entry point" "$(podman run --rm by-hand)" 1
    buildah commit -q --squash "$c" by-hand-squashed
    image_list by-hand-squashed by-hand-squashed
}

step any,ref 90 buildah_scratch "buildah from scratch, filled through its mount"
step_buildah_scratch() {
    local c
    c=$(buildah from scratch)
    # mode0 belongs to nobody but root: the whole of it goes in as root.
    as_container_root sh -euc 'm=$(buildah mount "$1"); tar -C "$m" --xattrs --xattrs-include="*" --numeric-owner -xpf "$T/base.tar"; rm -rf "$m/data/d1"; buildah umount "$1" >&2' - "$c"
    buildah commit -q "$c" filled
    image_list filled filled
}
