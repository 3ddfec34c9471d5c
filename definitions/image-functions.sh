    images=/opt/container-images
    # pack FOLDER FILE: a layer of a folder
    pack() { tar --sort=name --mtime=@1 --owner=0 --group=0 --numeric-owner -C "$1" -cf "$2" .; }
    # image NAME TAG LAYER.tar ...: one OCI archive for each image
    # GOGC: half of the garbage that Go keeps by default. Here, and not in manifests, so that these
    # are kubeadm's own, and what users write there has precedence.
    image() {
        name=$1 tag=$2 layout=/build/${1##*/}; shift 2
        umoci init --layout "$layout"
        umoci new --image "$layout:$tag"
        for layer in "$@"; do umoci raw add-layer --image "$layout:$tag" "$layer"; done
        umoci config --image "$layout:$tag" --author sykube --created 1970-01-01T00:00:01Z \
            --config.env PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
            --config.env GOGC=50 ${entrypoint:+--config.entrypoint "$entrypoint"}
        tar -C "$layout" -cf "$images/${name##*/}.tar" .
        rm -r "$layout"
        echo "${name##*/}.tar $name $tag" >> $images/list
    }
    # shipped NAME LAYER.tar ...: what a pod of that image sees
    shipped() {
        root=/build/shipped/$1; shift
        mkdir -p "$root"
        for layer in "$@"; do tar -C "$root" -xf "$layer"; done
    }
    # starts COMMAND ...: there as a pod's user; an image whose programs cannot is none
    starts() {
        said=$(chroot --userspec=65532:65532 "$root" "$@" 2>&1) ||
            { echo "$* cannot start in its image ${root##*/}: $said" >&2; exit 1; }
    }
