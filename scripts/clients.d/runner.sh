# Declaring steps, running one, and the table at the end.
#
#   step FLAGS SECONDS NAME "what it shows"      then a function called step_NAME
#
# FLAGS: `any`, `root` or `rootless`; `ref` if vfs can do it too (and is the
# reference); `ci` for the five-minute part; `fuse` if it is about the program
# itself, so that the kernel driver has no part in it.

STEPS=()
declare -A FLAGS SECONDS_OF TITLE RESULT TOOK REASON
FAILED=0
COLUMNS_SEEN=()

step() {
    STEPS+=("$3")
    FLAGS[$3]=,$1, SECONDS_OF[$3]=$2 TITLE[$3]=$4
}

list_steps() {
    local name
    for name in "${STEPS[@]}"; do printf '%-28s %-22s %s\n' "$name" "${FLAGS[$name]//,/ }" "${TITLE[$name]}"; done
}

# Whether a step has to do with this mode and driver; else why not, in WHY.
concerns() { # name
    local flags=${FLAGS[$1]}
    WHY=
    case $flags in
        *,root,*) [ "$MODE" = root ] || WHY="as root only" ;;
        *,rootless,*) [ "$MODE" = rootless ] || WHY="rootless only" ;;
    esac
    case $flags,$DRIVER in
        *,ref,*,vfs) ;;
        *,vfs) WHY="vfs mounts nothing" ;;
        *,fuse,*,kernel) WHY="the kernel's overlayfs is no program" ;;
    esac
    [ -z "$WHY" ]
}

run_world() { # mode driver
    local column=$1/$2 name started=$SECONDS
    COLUMNS_SEEN+=("$column")
    echo "== $column"
    if ! make_world "$1" "$2"; then
        for name in "${STEPS[@]}"; do RESULT[$column/$name]=SKIP REASON[$column/$name]="not installed"; done
        echo "   SKIP everything: $2 is not installed"
        return
    fi
    for name in "${STEPS[@]}"; do
        [[ $name =~ $ONLY || ${FLAGS[$name]} = *,always,* ]] || continue
        [ -z "$CI_PART" ] || [[ ${FLAGS[$name]} = *,ci,* ]] || continue
        run_step "$name"
    done
    unmake_world
    echo "   $column: $((SECONDS - started)) s"
}

run_step() { # name
    local name=$1 key=$MODE/$DRIVER/$1 log rc=0 begun=$EPOCHREALTIME
    RESULT[$key]=PASS TOOK[$key]=0 REASON[$key]=
    if ! concerns "$name"; then
        RESULT[$key]=- REASON[$key]=$WHY
        return
    fi
    log=$T/log/$MODE.$DRIVER.$name
    rm -f "$WORLD/reason"
    # A process group of its own, so that `timeout` ends all of it.
    in_world timeout -k 5 "${SECONDS_OF[$name]}" bash "$HERE/one-step" "$name" >"$log" 2>&1 </dev/null || rc=$?
    TOOK[$key]=$(awk -v a="$begun" -v b="$EPOCHREALTIME" 'BEGIN {printf "%.1f", b - a}')
    REASON[$key]=$(cat "$WORLD/reason" 2>/dev/null)
    case $rc in
        0) ;;
        77) RESULT[$key]=SKIP ;;
        78) RESULT[$key]=KNOWN ;;
        124 | 137) RESULT[$key]=FAIL REASON[$key]="did not end in ${SECONDS_OF[$name]} s" ;;
        *) RESULT[$key]=FAIL ;;
    esac
    say_step "$name" "$log"
    in_world timeout -k 5 60 bash "$HERE/one-step" --after >>"$log" 2>&1 </dev/null
}

say_step() { # name log
    local key=$MODE/$DRIVER/$1
    printf '   %-5s %-24s %6s s  %s\n' "${RESULT[$key]}" "$1" "${TOOK[$key]}" "${REASON[$key]:-${TITLE[$1]}}"
    [ "${RESULT[$key]}" = FAIL ] || return 0
    sed 's/^/      | /' "$2" | tail -n "${CLIENTS_LINES:-15}"
    [ "$DRIVER" != acetate ] || FAILED=1
}

print_table() {
    local name column key line reasons=()
    printf '\n%-24s' step
    for column in "${COLUMNS_SEEN[@]}"; do printf '%17s' "$column"; done
    echo
    for name in "${STEPS[@]}"; do
        line=$(printf '%-24s' "$name")
        local any=
        for column in "${COLUMNS_SEEN[@]}"; do
            key=$column/$name
            [ -n "${RESULT[$key]:-}" ] || continue
            any=1
            case ${RESULT[$key]} in
                -) line+=$(printf '%17s' -) ;;
                *) line+=$(printf '%11s%6s' "${RESULT[$key]}" "${TOOK[$key]:-}") ;;
            esac
            case ${RESULT[$key]} in FAIL | SKIP | KNOWN) reasons+=("${RESULT[$key]} $key: ${REASON[$key]:-see the log}") ;; esac
        done
        [ -z "$any" ] || echo "$line"
    done
    print_sums
    [ ${#reasons[@]} = 0 ] || printf '%s\n' "" "${reasons[@]}"
}

print_sums() {
    local column name word
    for word in PASS FAIL KNOWN SKIP; do
        printf '%-24s' "$word"
        for column in "${COLUMNS_SEEN[@]}"; do
            local n=0
            for name in "${STEPS[@]}"; do [ "${RESULT[$column/$name]:-}" != $word ] || n=$((n + 1)); done
            printf '%17s' $n
        done
        echo
    done
}
