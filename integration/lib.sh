# Shared by the scripts of integration/: sourced, not run. Bash.

integration=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(dirname "$integration")

say() { printf '%s\n' "$*"; }
die() {
    printf '%s: %s\n' "${0##*/}" "$*" >&2
    exit 1
}

# missing_packages PURPOSE..: the packages of these purposes that are not there.
missing_packages() {
    local purpose package witness wanted
    while read -r purpose package witness; do
        [[ -z $purpose || $purpose == \#* ]] && continue
        for wanted in "$@"; do
            [[ $wanted == "$purpose" ]] || continue
            if [[ -n $witness ]]; then
                command -v "$witness" >/dev/null || printf '%s\n' "$package"
            else
                dpkg-query -W -f '${db:Status-Status}\n' "$package" 2>/dev/null | grep -qx installed || printf '%s\n' "$package"
            fi
        done
    done <"$integration/packages" | sort -u
}

# install_packages PURPOSE..: install what is missing, from the distribution. Nothing to do is silent and needs no rights.
install_packages() {
    local missing become=()
    mapfile -t missing < <(missing_packages "$@")
    [[ ${#missing[@]} -eq 0 ]] && return 0
    command -v apt-get >/dev/null ||
        die "missing: ${missing[*]} - this system has no apt-get; install the same packages with its own tool (integration/packages)"
    if [[ $(id -u) -ne 0 ]]; then
        command -v sudo >/dev/null || die "missing: ${missing[*]} - run as root, or install them: apt-get install ${missing[*]}"
        become=(sudo)
    fi
    say "installing: ${missing[*]}"
    "${become[@]}" env DEBIAN_FRONTEND=noninteractive apt-get update -qq >/dev/null || say "apt-get update failed; trying with the old lists"
    "${become[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null ||
        die "could not install: ${missing[*]}"
}

# build_release: the program as it is shipped, at $root/build-release/outrigger.
build_release() {
    cmake -S "$root" -B "$root/build-release" -G Ninja -DCMAKE_BUILD_TYPE=Release -DOUTRIGGER_TESTS=OFF >/dev/null &&
        cmake --build "$root/build-release" --target outrigger
}

# is_root_in_namespace: may this process make network namespaces? (tests that need them are skipped otherwise, and say so)
can_make_namespaces() { unshare -n true 2>/dev/null; }
