# Shared by scripts/compare, scripts/scale and scripts/profile: what they need, and how they run. Sourced.

CACHE=${XDG_CACHE_HOME:-$HOME/.cache}/acetate
RUST_PEER=2.0.0

# Debian packages of programs that are missing; words are further programs.
install_programs() {
    [ "$(id -u)" = 0 ] || { echo "it needs root" >&2; exit 1; }
    local program missing=()
    for program in fuse-overlayfs fusermount3 sqlite3 git gcc make setpriv unshare "$@"; do
        command -v "$program" >/dev/null && continue
        case $program in
            fusermount3) missing+=(fuse3) ;;
            setpriv | unshare) missing+=(util-linux) ;;
            *) missing+=("$program") ;;
        esac
    done
    [ ${#missing[@]} = 0 ] && return
    if ! { apt-get update -qq && apt-get install -y -qq --no-install-recommends "${missing[@]}"; } >/dev/null; then
        echo "not installed, their rows will fail: ${missing[*]}" >&2
    fi
}

# The Rust peer, built once; without it its column is left out, with a word.
install_rust_peer() {
    [ -z "${RUST_FUSE_OVERLAYFS:-}" ] || return 0
    RUST_FUSE_OVERLAYFS=$CACHE/fuse-overlayfs-$RUST_PEER/bin/fuse-overlayfs
    export RUST_FUSE_OVERLAYFS
    [ -x "$RUST_FUSE_OVERLAYFS" ] && return
    echo "building fuse-overlayfs $RUST_PEER into $CACHE" >&2
    cargo install --quiet --locked fuse-overlayfs --version "=$RUST_PEER" \
        --root "$CACHE/fuse-overlayfs-$RUST_PEER" --target-dir "$CACHE/target" || true
}

# A small Debian with twenty packages in /debs, made once.
make_debian_root() {
    ACETATE_DEBIAN_ROOT=$CACHE/debian
    export ACETATE_DEBIAN_ROOT
    [ -d "$ACETATE_DEBIAN_ROOT/debs" ] && return
    command -v debootstrap >/dev/null || apt-get install -y -qq --no-install-recommends debootstrap >/dev/null
    local new=$CACHE/debian.new packages
    packages="file less tree jq bc sed gawk patch rsync time zip unzip xz-utils bzip2 lsof psmisc procps ed nano hello"
    rm -rf --one-file-system "$new"
    mkdir -p "$new"
    debootstrap --variant=minbase stable "$new" >/dev/null
    mkdir "$new/debs"
    # Downloaded only: the row unpacks and configures them, whatever they depend on.
    (cd "$new/debs" && for p in $packages; do apt-get download -qq "$p" || true; done)
    mv "$new" "$ACETATE_DEBIAN_ROOT"
}

# Runs the program in a directory that goes with it, ^C included.
run_bench() {
    local dir
    dir=$(mktemp -d "${ACETATE_BENCH_DIR:-/var/tmp}/acetate-bench.XXXXXX")
    chmod 755 "$dir"
    # shellcheck disable=SC2064
    trap "sleep 0.2; rm -rf --one-file-system '$dir'" EXIT
    trap 'exit 130' INT TERM
    cargo bench --quiet --bench compare --no-run
    local words=("$@")
    case " $* " in *" --dir"*) ;; *) words+=(--dir "$dir") ;; esac
    cargo bench --quiet --bench compare -- "${words[@]}"
}
