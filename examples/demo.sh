#!/bin/sh
# From nothing to a saved image: a real Debian root file system becomes an image; a command changes a container of it;
# the change is listed, committed, and saved as an archive that docker, podman, skopeo and umoci read.
# Everything happens in a store of its own, which is removed at the end. Needs root.
set -eu

if [ "$(id -u)" != 0 ]; then
    echo "the demo makes device nodes and mounts: run it as root" >&2
    exit 1
fi

place=$(mktemp -d /var/tmp/layerfs-demo.XXXXXX)
export LAYERFS_ROOT="$place/store" LAYERFS_RUN="$place/run"
cleanup() {
    layerfs rm -f work >/dev/null 2>&1 || true
    layerfs unmount --all >/dev/null 2>&1 || true
    rm -rf --one-file-system "$place"
}
trap cleanup EXIT
trap 'exit 130' INT TERM

say() { printf '\n\033[1m%s\033[0m\n' "$*"; }
run() {
    printf '$ layerfs %s\n' "$*"
    layerfs "$@"
}

say "1. A root file system, as a tar"
if command -v mmdebstrap >/dev/null && mmdebstrap --quiet --variant=minbase bookworm "$place/rootfs.tar" 2>"$place/log"; then
    echo "Debian bookworm, made by mmdebstrap: $(du -h "$place/rootfs.tar" | cut -f1)"
    change='apt-get --version | head -n 1; dpkg --audit; echo hello > /root/hello; rm /etc/motd; mkdir /srv/data; seq 100000 > /srv/data/numbers'
else
    echo "no Debian archive within reach; busybox instead"
    mkdir -p "$place/tree/bin" "$place/tree/etc" "$place/tree/root" "$place/tree/srv" "$place/tree/tmp"
    cp "$(command -v busybox)" "$place/tree/bin/busybox"
    for applet in sh ls cat echo rm mkdir seq head; do ln -s busybox "$place/tree/bin/$applet"; done
    echo welcome > "$place/tree/etc/motd"
    tar -C "$place/tree" -cf "$place/rootfs.tar" .
    change='echo hello > /root/hello; rm /etc/motd; mkdir /srv/data; seq 100000 > /srv/data/numbers'
fi

say "2. It becomes an image: one layer, one file"
run import -c 'CMD ["/bin/sh"]' -m 'a root file system' "$place/rootfs.tar" demo:base
run images

say "3. A container runs a command over it and changes some files"
run run --name work demo:base sh -c "$change"

say "4. What has changed"
run diff work

say "5. Commit: the changes become a layer, the layer an image"
run commit -m 'hello, and numbers' -c 'ENV GREETING=hello' work demo:changed
run history demo:changed
run run --rm demo:changed sh -c 'echo "$GREETING, $(cat /root/hello); $(ls /srv/data)"'

say "6. A file is read without any mount"
run ls demo:changed /srv/data
run cat demo:changed /root/hello

say "7. Save: an archive for docker, podman, skopeo, umoci"
run save -o "$place/demo.tar" demo:changed
tar -tf "$place/demo.tar" | head -n 12
if command -v skopeo >/dev/null; then
    echo "\$ skopeo inspect docker-archive:demo.tar"
    skopeo inspect "docker-archive:$place/demo.tar" | head -n 12
fi

say "8. What it takes on disk, and whether it is whole"
run system df
run system check
