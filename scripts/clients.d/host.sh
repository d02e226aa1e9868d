# What the host must have, and making it so: packages, the ordinary user, acetate.
# Sourced by scripts/clients; runs before any namespace is made.

# command:package
CLIENT_PACKAGES=(
    podman:podman buildah:buildah skopeo:skopeo umoci:umoci crun:crun conmon:conmon
    newuidmap:uidmap setcap:libcap2-bin docker-registry:docker-registry
    dockerd:docker.io fusermount3:fuse3 getfattr:attr setfacl:acl strace:strace
    busybox:busybox-static python3:python3-minimal setpriv:util-linux pgrep:procps
)
export USER_NAME=tester

# Ends the run: it cannot be done here.
cannot() { echo "SKIPPED: $*"; exit 77; }

host_is_fit() {
    [ "$(id -u)" = 0 ] || cannot "needs root, to start clients as root and as the user $USER_NAME"
    grep -q ' 4294967295$' /proc/self/uid_map || cannot "needs root of the whole machine, not of a user namespace"
    [ -c /dev/fuse ] || cannot "there is no /dev/fuse"
    install_packages
    make_user
    unshare --mount --propagation private --pid --mount-proc --net --fork true 2>/dev/null ||
        cannot "mount, process and network namespaces cannot be made here"
    if [[ $MODES = *rootless* ]] && ! setpriv --reuid="$USER_NAME" --regid="$USER_NAME" \
        --init-groups --inh-caps=-all unshare -U true 2>/dev/null; then
        MODES=${MODES/rootless/}
        [ -n "${MODES// /}" ] || cannot "an ordinary user cannot make a user namespace here"
        echo "SKIPPED: rootless: an ordinary user cannot make a user namespace here"
    fi
}

install_packages() {
    local pair missing=() wanted=("${CLIENT_PACKAGES[@]}")
    [[ $DRIVERS != *c* ]] || [ "$DRIVERS" = acetate ] || wanted+=(fuse-overlayfs:fuse-overlayfs)
    for pair in "${wanted[@]}"; do
        command -v "${pair%%:*}" >/dev/null || missing+=("${pair##*:}")
    done
    [ ${#missing[@]} -gt 0 ] || return 0
    [ -z "${ACETATE_CLIENTS_NO_INSTALL:-}" ] || cannot "not installed: ${missing[*]}"
    command -v apt-get >/dev/null || cannot "not installed, and there is no apt-get: ${missing[*]}"
    echo "installing: ${missing[*]}" >&2
    if ! { apt-get -qq update && DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 \
        apt-get -qq -y --no-install-recommends install "${missing[@]}"; } >&2; then
        cannot "apt-get could not install ${missing[*]}"
    fi
}

make_user() {
    local known=(id "$USER_NAME")
    # Twice: another run may be making it at this moment.
    "${known[@]}" >/dev/null 2>&1 || useradd --uid 1001 --create-home "$USER_NAME" || "${known[@]}" >/dev/null
}

build_acetate() {
    (cd "$REPO" && cargo build --release --quiet >&2)
    echo "${CARGO_TARGET_DIR:-$REPO/target}/release/acetate"
}

# Stores need a disk's file system: the kernel takes no overlay as an upper.
place_for_stores() {
    if [ -n "${ACETATE_CLIENTS_DIR:-}" ]; then echo "$ACETATE_CLIENTS_DIR"
    elif [ -d /work/tmp ]; then echo /work/tmp
    else echo /var/tmp; fi
}

# Says that a run is going on, until the script ends; its children must not hold it (9>&-).
announce_run() { exec 9<"$(place_for_stores)"; flock -s 9; }

# podman leaves empty cgroups behind when it is killed; an ordinary user's makes
# none. Another run's are empty for an instant too: the last run removes all.
remove_cgroups() {
    [[ " $MODES " = *" root "* ]] && flock -n 9 || return 0
    find /sys/fs/cgroup -depth -type d \( -path '*libpod_parent*' -o -path '*/libpod-*' \
        -o -path '*/docker/*' -o -path '*/acetate-clients*' \) -exec rmdir {} + 2>/dev/null || true
}

# The last process of a namespace may be gone a moment before its mounts are.
remove_stores() {
    local i
    for i in 1 2 3 4 5; do
        rm -rf --one-file-system "$1" 2>/dev/null && return
        sleep 1
    done
    echo "could not remove $1" >&2
}
