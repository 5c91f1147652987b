#!/bin/sh
# usage: floor.sh together|in-turn SUITE ISO FOLDER: what no build of these packages can do without.
# FOLDER has a folder for each root, with the local repository of its locked packages in repository/.
# COMPRESSION has mksquashfs's options. ISO's bytes are written once more, as mastering has to.
set -eu
how=$1 suite=$2 iso=$3 folder=$4

root() {
    packages=$(sed -n 's/^Package: //p' "$1/repository/Packages" | sort -u | paste -sd,)
    mmdebstrap --mode=root --variant=essential --format=directory --include="$packages" \
        --aptopt='APT::Install-Recommends "false"' --dpkgopt=force-unsafe-io --skip=check/empty \
        "$suite" "$1/tree" "deb [trusted=yes] copy:$1/repository ./"
    # shellcheck disable=SC2086 # the options are words
    mksquashfs "$1/tree" "$1/root.squashfs" -noappend -no-progress -no-recovery $COMPRESSION \
        -wildcards -e 'proc/*' 'sys/*' 'dev/*' 'run/*' 'tmp/*'
}

if [ "$how" = together ]; then
    root "$folder/hypervisor" &
    first=$!
    root "$folder/cvm"
    wait "$first"
else
    root "$folder/hypervisor"
    root "$folder/cvm"
fi
cp --reflink=never "$iso" "$folder/floor.iso"
