"""The hostile documents, made by code, each with what must become of it: layouts, indexes, manifests, configurations,
and the manifest.json of docker.

A case is an archive and an outcome: "refused" (the document is wrong: exit code 3), "invalid" (it asks for what there
is not, or for nothing: 2), "missing" (it names what is not there: 1), or "kept": it is odd and harmless, every verb
that reads images takes it, and it goes out again with the same image ID; ``run`` may say what a container ends with.
"""

import base64
import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import tarbuild as t
from boxes import BUSYBOX

__all__ = ["INDEX", "MANIFEST", "Case", "cases"]

REFUSED, INVALID, MISSING, KEPT = "refused", "invalid", "missing", "kept"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar"
_REF = "org.opencontainers.image.ref.name"
_NAME = "io.containerd.image.name"
_DEEP = b"[" * 200_000 + b"]" * 200_000
_SMALL = t.archive(t.directory("etc"), t.file("etc/motd", b"hello\n"))
_BOX = t.archive(
    t.directory("bin", mode=0o755),
    t.directory("etc", mode=0o755),
    t.file("bin/busybox", BUSYBOX.read_bytes() if BUSYBOX.exists() else b"", mode=0o755),
    t.symlink("bin/sh", "busybox"),
    t.file("etc/passwd", b"root:x:0:0:root:/:/bin/sh\n"),
    t.symlink("link", "/../../../../../../etc"),
)
Files = dict[str, bytes]
Document = dict[str, Any]
Edit = Callable[[Document], Any]


@dataclass(frozen=True)
class Case:
    """``run``: by the built-in launcher and by runc. ``pulled``: the manifest (or index) alone, for a registry that has
    the blobs of ``files``; None where the archive's own documents are what is hostile. ``pull``: the outcome there,
    where it is another one."""

    name: str
    files: Files
    outcome: str
    run: tuple[int, int] | None = None
    pulled: bytes | None = None
    pull: str = ""


def _digest(data: bytes, algorithm: str = "sha256") -> str:
    return f"{algorithm}:{hashlib.new(algorithm, data).hexdigest()}"


def _descriptor(data: bytes, media_type: str, **more: Any) -> Document:
    return {"mediaType": media_type, "digest": _digest(data), "size": len(data), **more}


def _json(document: Any) -> bytes:
    return document if isinstance(document, bytes) else json.dumps(document).encode()


def _blob(data: bytes) -> Files:
    return {f"blobs/{_digest(data).replace(':', '/')}": data}


def _config(layer: bytes = _SMALL) -> Document:
    return {
        "architecture": "amd64",
        "os": "linux",
        "config": {"Cmd": ["/bin/sh", "-c", "exit 7"]},
        "rootfs": {"type": "layers", "diff_ids": [_digest(layer)]},
    }


def _manifest(config: bytes, layer: bytes = _SMALL) -> Document:
    return {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": _descriptor(config, CONFIG),
        "layers": [_descriptor(layer, LAYER)],
    }


def _edited(document: Document, edit: Edit) -> Any:
    """What the edit gives, else the document that it changed."""
    changed = edit(document)
    return document if changed is None else changed


def _layout(entry: Document | None, *blobs: bytes, index: Any = None, version: Any = None) -> Files:
    files: Files = {}
    for data in blobs:
        files |= _blob(data)
    top = index if index is not None else {"schemaVersion": 2, "manifests": [entry]}
    layout = {"imageLayoutVersion": "1.0.0"} if version is None else version
    return {"oci-layout": _json(layout), "index.json": _json(top)} | files


def _of_version(name: str, version: Any, outcome: str) -> Case:
    config = _json(_config())
    manifest = _json(_manifest(config))
    return Case(name, _layout(_descriptor(manifest, MANIFEST), manifest, config, _SMALL, version=version), outcome)


def _of_index(name: str, edit: Edit, outcome: str) -> Case:
    """A hostile index.json."""
    config = _json(_config())
    manifest = _json(_manifest(config))
    index = _edited({"schemaVersion": 2, "manifests": [_descriptor(manifest, MANIFEST)]}, edit)
    return Case(name, _layout(None, manifest, config, _SMALL, index=_json(index)), outcome)


def _of_entry(name: str, edit: Edit, outcome: str) -> Case:
    """A hostile descriptor in index.json."""

    def change(index: Document) -> None:
        index["manifests"] = [_edited(index["manifests"][0], edit)]

    return _of_index(name, change, outcome)


def _of_manifest(name: str, edit: Edit, outcome: str, *more: bytes, pull: str = "") -> Case:
    config = _json(_config())
    manifest = _json(_edited(_manifest(config), edit))
    blobs = (manifest, config, _SMALL, *more)
    return Case(name, _layout(_descriptor(manifest, MANIFEST), *blobs), outcome, pulled=manifest, pull=pull)


def _of_layer(name: str, edit: Edit, outcome: str, *more: bytes, pull: str = "") -> Case:
    """A hostile descriptor in a manifest."""

    def change(manifest: Document) -> None:
        manifest["layers"] = [_edited(manifest["layers"][0], edit)]

    return _of_manifest(name, change, outcome, *more, pull=pull)


def _of_config(name: str, edit: Edit, outcome: str, run: tuple[int, int] | None = None) -> Case:
    layer = _SMALL if run is None else _BOX
    config = _json(_edited(_config(layer), edit))
    manifest = _json(_manifest(config, layer))
    files = _layout(_descriptor(manifest, MANIFEST), manifest, config, layer)
    return Case(name, files, outcome, run, pulled=manifest)


def _of_docker(name: str, edit: Edit, outcome: str, *, more: Files | None = None) -> Case:
    """A hostile manifest.json of a docker-archive."""
    entry = {"Config": "c.json", "RepoTags": ["x:1"], "Layers": ["l/layer.tar"]}
    document = _json(_edited({"entries": [entry]}, edit))
    files = {"c.json": _json(_config()), "l/layer.tar": _SMALL, "manifest.json": document}
    return Case(name, files | (more or {}), outcome)


def _put(*path: str | int, value: Any) -> Edit:
    """An edit of one member; what leads to it is there."""

    def edit(document: Any) -> None:
        for step in path[:-1]:
            document = document[step]
        document[path[-1]] = value

    return edit


def _drop(name: str) -> Edit:
    return lambda document: document.pop(name) and None


def _replaced(old: bytes, new: bytes) -> Edit:
    """An edit of the text: JSON that ``json`` would not write."""

    def edit(document: Document) -> bytes:
        text = _json(document)
        assert old in text
        return text.replace(old, new, 1)

    return edit


def versions() -> Iterator[Case]:
    yield _of_version("layout-no-version", {"version": "1.0.0"}, REFUSED)
    yield _of_version("layout-version-null", {"imageLayoutVersion": None}, REFUSED)
    yield _of_version("layout-version-number", {"imageLayoutVersion": 1.0}, REFUSED)
    yield _of_version("layout-version-2", {"imageLayoutVersion": "2.0.0"}, REFUSED)
    yield _of_version("layout-version-10", {"imageLayoutVersion": "10.0.0"}, REFUSED)
    yield _of_version("layout-version-later", {"imageLayoutVersion": "1.9.9", "x": [1e308]}, KEPT)
    yield _of_version("layout-list", [], REFUSED)
    yield _of_version("layout-bom", b'\xef\xbb\xbf{"imageLayoutVersion":"1.0.0"}', REFUSED)
    yield _of_version("layout-utf-16", '{"imageLayoutVersion":"1.0.0"}'.encode("utf-16"), REFUSED)
    yield _of_version("layout-nul-behind", b'{"imageLayoutVersion":"1.0.0"}\0', REFUSED)
    yield _of_version("layout-two-documents", b'{"imageLayoutVersion":"1.0.0"}{}', REFUSED)
    yield _of_version("layout-last-of-two", b'{"imageLayoutVersion":"9","imageLayoutVersion":"1.0.0"}', KEPT)
    yield _of_version("layout-deep", _DEEP[:30_000] + _DEEP[-30_000:], REFUSED)


def indexes() -> Iterator[Case]:
    yield _of_index("index-empty", _put("manifests", value=[]), INVALID)
    yield _of_index("index-null", _put("manifests", value=None), REFUSED)
    yield _of_index("index-object", _put("manifests", value={}), REFUSED)
    yield _of_index("index-of-null", _put("manifests", value=[None]), REFUSED)
    yield _of_index("index-of-lists", _put("manifests", value=[[]]), REFUSED)
    yield _of_index("index-of-nothing", _put("manifests", value=[{}]), REFUSED)
    yield _of_index("index-is-null", lambda index: b"null", REFUSED)
    yield _of_index("index-is-text", lambda index: b'"x"', REFUSED)
    yield _of_index("index-is-empty", lambda index: b" ", REFUSED)
    yield _of_index("index-deep", lambda index: _DEEP, REFUSED)
    yield _of_index("index-deep-below", lambda index: b'{"schemaVersion":2,"x":' + _DEEP + b"}", REFUSED)
    yield _of_index("index-bom", lambda index: b"\xef\xbb\xbf" + _json(index), REFUSED)
    yield _of_index("index-nul", lambda index: _json(index) + b"\0", REFUSED)
    yield _of_index("index-not-utf-8", _replaced(b'"mediaType"', b'"x": "\xff\xfe", "mediaType"'), KEPT)
    yield _of_index("index-lone-surrogate", _replaced(b'"mediaType"', b'"x": "\\ud800", "mediaType"'), REFUSED)
    yield _of_index("index-nan", _replaced(b"2,", b"NaN,"), REFUSED)
    for text in ("1", "3", "-2", '"2"', "null", "true", "1e400", "2e400", "2" + "0" * 4000, "[2]"):
        yield _of_index(f"index-version-{text[:9]}", _replaced(b"2,", text.encode() + b","), REFUSED)
    yield _of_index("index-no-version", _drop("schemaVersion"), REFUSED)
    yield _of_index("index-annotations-list", _put("annotations", value=[]), REFUSED)
    yield _of_index("index-annotations-numbers", _put("annotations", value={"x": 1}), REFUSED)
    yield _of_index("index-annotations-null", _put("annotations", value={"x": None}), KEPT)
    many = {f"key {n}": "v" * 20 for n in range(80_000)}
    yield _of_index("index-annotations-many", _put("annotations", value=many), KEPT)
    yield _of_index("index-5-mib", _put("annotations", value={"x": "x" * (5 << 20)}), REFUSED)
    yield _of_index("index-many-entries", lambda index: index["manifests"].extend(index["manifests"] * 12_000), REFUSED)
    yield _of_index("index-9000-entries", lambda index: index["manifests"].extend(index["manifests"] * 9000), KEPT)
    yield _of_index("index-subject-wrong", _put("subject", value={"digest": "x"}), REFUSED)
    yield from _nested()


def _nested() -> Iterator[Case]:
    """Indexes in one another. A true circle has no digest, so what claims to be one is a blob with wrong content."""
    config = _json(_config())
    manifest = _json(_manifest(config))

    def index(*children: Document) -> bytes:
        return _json({"schemaVersion": 2, "mediaType": INDEX, "manifests": children})

    for depth, outcome in ((6, KEPT), (9, REFUSED), (200, REFUSED)):
        blobs = [index(_descriptor(manifest, MANIFEST))]
        for _ in range(depth - 1):
            blobs.append(index(_descriptor(blobs[-1], INDEX)))
        files = _layout(_descriptor(blobs[-1], INDEX), *blobs, manifest, config, _SMALL)
        yield Case(f"indexes-{depth}-deep", files, outcome, pulled=blobs[-1])
    wide = [index(_descriptor(manifest, MANIFEST))]
    for _ in range(5):
        wide.append(index(*[_descriptor(wide[-1], INDEX)] * 1000))
    files = _layout(_descriptor(wide[-1], INDEX), *wide, manifest, config, _SMALL)
    yield Case("indexes-1000-to-the-5", files, KEPT, pulled=wide[-1], pull=MISSING)  # none is for this platform
    place = "sha256:" + "a" * 64
    itself = index({"mediaType": INDEX, "digest": place, "size": 200})
    entry = {"mediaType": INDEX, "digest": place, "size": len(itself)}
    yield Case("index-of-itself", _layout(entry) | {f"blobs/sha256/{'a' * 64}": itself}, REFUSED)
    other = index({"mediaType": INDEX, "digest": "sha256:" + "b" * 64, "size": len(itself)})
    circle = {f"blobs/sha256/{'a' * 64}": other, f"blobs/sha256/{'b' * 64}": itself}
    yield Case("indexes-in-a-circle", _layout(entry) | circle, REFUSED)
    called = _json({"schemaVersion": 2, "mediaType": INDEX, "manifests": [_descriptor(manifest, INDEX)]})
    files = _layout(_descriptor(called, INDEX), called, manifest, config, _SMALL)
    yield Case("index-calls-a-manifest-index", files, REFUSED, pulled=called)
    elsewhere = index(_descriptor(manifest, MANIFEST, platform={"os": "plan9", "architecture": "../../x"}))
    files = _layout(_descriptor(elsewhere, INDEX), elsewhere, manifest, config, _SMALL)
    yield Case("index-for-a-strange-platform", files, KEPT)
    for name, platform in (("null", {"os": None}), ("text", "linux"), ("number", {"os": 1, "architecture": "amd64"})):
        wrong = index(_descriptor(manifest, MANIFEST, platform=platform))
        files = _layout(_descriptor(wrong, INDEX), wrong, manifest, config, _SMALL)
        yield Case(f"index-platform-{name}", files, REFUSED, pulled=wrong)


def descriptors() -> Iterator[Case]:
    for size in ("-1", "9223372036854775808", "18446744073709551617", "1.5", '"12"', "null", "1e400", "[]", "1" * 4000):
        change = _replaced(b'"size": ', b'"size": ' + size.encode() + b', "was": ')
        yield _of_index(f"entry-size-{size[:20]}", change, REFUSED)
    for size in (0, 1, 1 << 40, (1 << 63) - 1):
        yield _of_entry(f"entry-size-is-not-{size}", _put("size", value=size), REFUSED)
        yield _of_layer(f"layer-size-is-not-{size}", _put("size", value=size), REFUSED)
    wrong = {
        "path": "sha256:../../../../etc/passwd",
        "path-of-its-length": "sha256:" + "../" * 21 + "x",
        "upper-case": "sha256:" + "A" * 64,
        "short": "sha256:abc",
        "long": "sha256:" + "a" * 65,
        "newline": "sha256:" + "a" * 64 + "\n",
        "nul": "sha256:" + "a" * 63 + "\0",
        "full-width": "sha256:" + "\uff11" * 64,
        "no-algorithm": "a" * 64,
        "upper-algorithm": "SHA256:" + "a" * 64,
        "md5": "md5:" + "a" * 32,
        "sha384": "sha384:" + "a" * 96,
        "combined": "sha256+b64:" + "a" * 64,
        "empty": "",
        "spaces": " sha256:" + "a" * 64,
    }
    for name, digest in wrong.items():
        yield _of_entry(f"entry-digest-{name}", _put("digest", value=digest), REFUSED)
        yield _of_layer(f"layer-digest-{name}", _put("digest", value=digest), REFUSED)
    yield _of_entry("entry-digest-number", _put("digest", value=1), REFUSED)
    yield _of_entry("entry-digest-null", _put("digest", value=None), REFUSED)
    yield _of_entry("entry-not-there", _put("digest", value="sha256:" + "a" * 64), MISSING)
    yield _of_layer("layer-not-there", _put("digest", value="sha256:" + "a" * 64), MISSING)
    sha512 = {f"blobs/sha512/{_digest(_SMALL, 'sha512')[7:]}": _SMALL}
    good = _of_layer("layer-sha512", _put("digest", value=_digest(_SMALL, "sha512")), KEPT)
    yield Case(good.name, good.files | sha512, KEPT)
    bad = _of_layer("layer-sha512-of-another", _put("digest", value="sha512:" + "a" * 128), REFUSED)
    yield Case(bad.name, bad.files | {f"blobs/sha512/{'a' * 128}": _SMALL}, REFUSED)
    yield _of_entry("entry-media-type-null", _put("mediaType", value=None), REFUSED)
    yield _of_entry("entry-media-type-number", _put("mediaType", value=7), REFUSED)
    yield _of_entry("entry-media-type-unknown", _put("mediaType", value="application/x"), INVALID)
    yield _of_entry("entry-called-an-index", _put("mediaType", value=INDEX), REFUSED)
    yield _of_entry("entry-called-schema-1", _put("mediaType", value=MANIFEST.replace("v1", "v9")), INVALID)
    for name in ("../../x:1", "X:1", "a b:1", "x:" + "t" * 129, "\x1b[31m:1", "x\n:1", "x@sha256:1", "/:1"):
        yield _of_entry(f"entry-name-{name[:9]!r}", _put("annotations", value={_NAME: name}), REFUSED)
    yield _of_entry("entry-ref-path", _put("annotations", value={_REF: "../../../etc/passwd"}), REFUSED)
    yield _of_entry("entry-ref-escape", _put("annotations", value={_REF: "\x1b]0;x\x07"}), KEPT)
    yield _of_entry("entry-urls-text", _put("urls", value="file:///etc/passwd"), REFUSED)
    yield _of_entry("entry-urls-numbers", _put("urls", value=[1]), REFUSED)
    yield from _embedded()


def _embedded() -> Iterator[Case]:
    """``data`` and ``urls``: other places where the bytes might be."""
    config = _json(_config())
    for name, data in (
        ("other", base64.b64encode(b"{}").decode()),
        ("no-base64", "!!!!"),
        ("not-ascii", "\u00e9" * 8),
        ("url-safe", "-_-_"),
        ("empty", ""),
        ("longer", base64.b64encode(config + b" ").decode()),
    ):
        yield _of_manifest(f"config-data-{name}", _put("config", "data", value=data), REFUSED)
    yield _of_manifest("config-data-number", _put("config", "data", value=1), REFUSED)
    yield _of_manifest("config-data-right", _put("config", "data", value=base64.b64encode(config).decode()), KEPT)
    urls = ["file:///etc/passwd", "http://127.0.0.1:1/x", "gopher://x"]
    yield _of_layer("layer-urls", _put("urls", value=urls), KEPT)
    foreign = {
        "mediaType": "application/vnd.oci.image.layer.nondistributable.v1.tar",
        "digest": "sha256:" + "a" * 64,
        "size": 5,
        "urls": urls,
    }
    yield _of_layer("layer-foreign-not-there", lambda layer: foreign, MISSING)


def manifests() -> Iterator[Case]:
    yield _of_manifest("manifest-is-null", lambda m: b"null", REFUSED)
    yield _of_manifest("manifest-is-a-list", lambda m: [m], REFUSED)
    yield _of_manifest("manifest-deep", lambda m: _DEEP, REFUSED)
    yield _of_manifest("manifest-bom", lambda m: b"\xef\xbb\xbf" + _json(m), REFUSED)
    yield _of_manifest("manifest-5-mib", _put("annotations", value={"x": "x" * (5 << 20)}), REFUSED)
    yield _of_manifest("manifest-schema-1", lambda m: {"schemaVersion": 1, "fsLayers": [{"blobSum": "x"}]}, REFUSED)
    yield _of_manifest("manifest-both-schemas", _put("fsLayers", value=[{"blobSum": "x"}]), REFUSED)
    yield _of_manifest("manifest-is-index-too", _put("manifests", value=[]), REFUSED)
    yield _of_manifest("manifest-called-index", _put("mediaType", value=INDEX), REFUSED)
    yield _of_manifest("manifest-called-text", _put("mediaType", value="text/plain"), REFUSED)
    yield _of_manifest("manifest-called-number", _put("mediaType", value=2), REFUSED)
    yield _of_manifest("manifest-layers-in-other-case", _put("Layers", value=[]), REFUSED)
    yield _of_manifest("manifest-config-in-other-case", _put("CONFIG", value={}), REFUSED)
    yield _of_manifest("manifest-manifests-in-other-case", _put("Manifests", value=[]), REFUSED)
    yield _of_manifest("manifest-no-config", _drop("config"), REFUSED)
    yield _of_manifest("manifest-config-null", _put("config", value=None), REFUSED)
    yield _of_manifest("manifest-no-layers", _drop("layers"), REFUSED)
    yield _of_manifest("manifest-layers-null", _put("layers", value=None), REFUSED)
    yield _of_manifest("manifest-layers-object", _put("layers", value={}), REFUSED)
    yield _of_manifest("manifest-layers-of-null", _put("layers", value=[None]), REFUSED)
    yield _of_manifest("manifest-layer-twice", lambda m: m["layers"].extend(m["layers"]), REFUSED)
    yield _of_manifest("manifest-12000-layers", lambda m: m["layers"].extend(m["layers"] * 12_000), REFUSED)
    yield _of_manifest("manifest-config-is-the-layer", lambda m: m.update(config=_descriptor(_SMALL, CONFIG)), REFUSED)
    yield _of_manifest("manifest-config-of-5-gib", _put("config", "size", value=5 << 30), REFUSED)
    yield _of_manifest("manifest-config-negative", _put("config", "size", value=-3), REFUSED)
    yield _of_manifest("manifest-layer-is-the-config", _layer_is_config, REFUSED)
    # What is an artifact, an archive of images leaves out; one that was asked for by its name may be pulled.
    yield _of_manifest("manifest-config-artifact", _put("config", "mediaType", value="x/y"), INVALID, pull=KEPT)
    signature = {"schemaVersion": 2, "config": _descriptor(b"{}", "x/y"), "layers": []}
    beside = _of_index("index-image-and-artifact", _beside(_json(signature)), KEPT)
    yield Case(beside.name, beside.files | _blob(_json(signature)) | _blob(b"{}"), KEPT)
    for kind in ("", "x/y", CONFIG):
        yield _of_layer(f"layer-kind-{kind[-20:]}", _put("mediaType", value=kind), INVALID, pull=KEPT)
    yield _of_layer("layer-kind-manifest", _put("mediaType", value=MANIFEST), INVALID, pull=REFUSED)
    for kind in ("+encrypted", "+gzip+encrypted", "+br"):
        yield _of_layer(f"layer-kind-{kind}", _put("mediaType", value=LAYER + kind), INVALID)
    for kind in ("+gzip", "+zstd"):  # and is a plain tar, which everyone takes for what it is
        yield _of_layer(f"layer-kind-{kind[1:]}-in-vain", _put("mediaType", value=LAYER + kind), KEPT)
    two = _json(_config() | {"rootfs": {"type": "layers", "diff_ids": [_digest(_SMALL), _digest(_BOX)]}})
    same = _manifest(two)
    same["layers"] *= 2
    yield _of_manifest("manifest-one-layer-two-diff-ids", lambda m: same, REFUSED, two)
    again = _json(_config() | {"rootfs": {"type": "layers", "diff_ids": [_digest(_SMALL)] * 2}})
    twice = _manifest(again)
    twice["layers"] *= 2
    yield _of_manifest("manifest-one-layer-twice", lambda m: twice, KEPT, again)


def _beside(other: bytes) -> Edit:
    return lambda index: index["manifests"].append(_descriptor(other, MANIFEST))


def _layer_is_config(manifest: Document) -> None:
    manifest["layers"][0] |= {"digest": manifest["config"]["digest"], "size": manifest["config"]["size"]}


def configurations() -> Iterator[Case]:
    for name, text in (("null", b"null"), ("empty", b""), ("list", b"[]"), ("text", b'"x"'), ("deep", _DEEP)):
        yield _of_config(f"config-is-{name}", lambda c, text=text: text, REFUSED)
    yield _of_config("config-nul", lambda c: _json(c) + b"\0", REFUSED)
    yield _of_config("config-not-utf-8", _replaced(b'"amd64"', b'"\xff"'), REFUSED)
    yield _of_config("config-17-mib", _put("author", value="x" * (17 << 20)), REFUSED)
    yield _of_config("config-rootfs-null", _put("rootfs", value=None), REFUSED)
    yield _of_config("config-rootfs-missing", _drop("rootfs"), REFUSED)
    yield _of_config("config-rootfs-type", _put("rootfs", "type", value="layers+base"), REFUSED)
    for name, ids in (
        ("none", []), ("null", None), ("of-null", [None]), ("text", "sha256:"), ("two", ["sha256:" + "a" * 64] * 2),
        ("wrong", ["sha256:" + "a" * 64]), ("path", ["sha256:../../x"]), ("md5", ["md5:" + "a" * 32]),
        ("upper", ["sha256:" + "A" * 64]), ("sha512", ["sha512:" + "a" * 128]),
        ("12000", ["sha256:" + "a" * 64] * 12_000),
    ):  # fmt: skip
        yield _of_config(f"config-diff-ids-{name}", _put("rootfs", "diff_ids", value=ids), REFUSED)
    for name, value in (
        ("env-text", {"Env": "A=b"}), ("env-numbers", {"Env": [1]}), ("env-object", {"Env": {}}),
        ("cmd-object", {"Cmd": {}}), ("cmd-of-lists", {"Cmd": [[]]}), ("user-number", {"User": 0}),
        ("user-list", {"User": ["root"]}), ("working-dir-null-list", {"WorkingDir": [None]}),
        ("labels-list", {"Labels": ["a"]}), ("labels-numbers", {"Labels": {"a": 1}}), ("shell-text", {"Shell": "sh"}),
        ("volumes-list", {"Volumes": ["/x"]}), ("ports-text", {"ExposedPorts": "80"}),
    ):  # fmt: skip
        yield _of_config(f"config-{name}", _put("config", value=value), REFUSED)
    yield _of_config("config-of-text", _put("config", value="x"), REFUSED)
    yield _of_config("config-null", _put("config", value=None), KEPT)
    yield _of_config("config-labels-many", _put("config", "Labels", value={f"l{n}": "v" for n in range(50_000)}), KEPT)
    yield _of_config("config-labels-null", _put("config", "Labels", value={"a": None}), KEPT)
    yield _of_config("config-labels-escape", _put("config", "Labels", value={"\x1b[2J": "\x07\0\n"}), KEPT)
    yield _of_config("config-volumes", _put("config", "Volumes", value={"": {}, "../../x": 1, "/a/../..": None}), KEPT)
    yield _of_config("config-health", _put("config", "Healthcheck", value={"Test": 1, "Interval": "x"}), KEPT)
    yield _of_config("config-unknown", _put("config", "Runtime", value={"HostConfig": {"Privileged": True}}), KEPT)
    yield from _histories()
    yield from _platforms()
    yield from _running()


def _histories() -> Iterator[Case]:
    for name, value in (
        ("text", "x"), ("of-text", ["x"]), ("empty-layer-text", [{"empty_layer": "yes"}]),
        ("created-number", [{"created": 5}]), ("created-by-list", [{"created_by": []}]),
    ):  # fmt: skip
        yield _of_config(f"config-history-{name}", _put("history", value=value), REFUSED)
    yield _of_config("config-history-null", _put("history", value=None), KEPT)
    yield _of_config("config-history-more-than-layers", _put("history", value=[{"created_by": "x"}] * 50), KEPT)
    yield _of_config("config-history-many", _put("history", value=[{"empty_layer": True}] * 20_000), KEPT)
    lines = [{"created_by": "a\nb\r\t\x1b[31m\0", "comment": "\n\n", "created": "not a time"}]
    yield _of_config("config-history-lines", _put("history", value=lines), KEPT)
    for at in ("", "yesterday", "9999-99-99T00:00:00Z", "0000-00-00T00:00:00Z", "-1", "0001-01-01T00:00:00Z",
               "9999-12-31T23:59:59Z", "2020-01-01T00:00:00.9999999999999999Z", "2020-01-01T00:00:00+99:99",
               "2020-02-30T00:00:00Z", "1" * 5000):  # fmt: skip
        yield _of_config(f"config-created-{at[:24]}", _put("created", value=at), KEPT)
    yield _of_config("config-created-number", _put("created", value=1e300), REFUSED)


def _platforms() -> Iterator[Case]:
    yield _of_config("config-os-number", _put("os", value=1), REFUSED)
    yield _of_config("config-os-null", _put("os", value=None), REFUSED)
    yield _of_config("config-architecture-list", _put("architecture", value=[]), REFUSED)
    yield _of_config("config-variant-number", _put("variant", value=8), REFUSED)
    yield _of_config("config-os-path", _put("os", value="../../etc"), KEPT, (7, 7))
    yield _of_config("config-os-empty", _put("os", value=""), KEPT, (7, 7))
    yield _of_config("config-architecture-other", _put("architecture", value="pdp11"), KEPT)
    yield _of_config("config-variant-huge", _put("variant", value="v" + "9" * 5000), KEPT)


def _running() -> Iterator[Case]:
    """What a container of it comes to: its command's code (7), or 125 to 127 and one line."""
    for name, value, code in (
        ("env-empty", {"Env": ["", "NAME"]}, 7),
        ("env-no-name", {"Env": ["=x"]}, (7, 125)),
        ("env-nul", {"Env": ["A=b\0c"]}, 125),
        ("env-newline", {"Env": ["A=b\nPATH=/x"]}, 7),
        ("env-path", {"Env": ["PATH="], "Cmd": ["sh"]}, 127),
        ("env-preload", {"Env": ["LD_PRELOAD=/etc/x.so", "PYTHONPATH=/x", "LAYERFS_ROOT=/x", "HOME=/x"]}, 7),
        ("env-million", {"Env": [f"A{n}=" + "x" * 100 for n in range(40_000)]}, (126, 1)),
        ("cmd-none", {"Cmd": None}, 125),
        ("cmd-empty", {"Cmd": []}, 125),
        ("cmd-of-nothing", {"Cmd": [""]}, 127),
        ("cmd-nul", {"Cmd": ["/bin/sh\0x"]}, 125),
        ("cmd-directory", {"Cmd": ["/etc"]}, 126),
        ("cmd-up", {"Cmd": ["../../../../bin/ls"]}, 127),
        ("cmd-long", {"Cmd": ["/" + "x" * 100_000]}, (126, 127)),
        ("cmd-not-there", {"Cmd": ["/link/passwd"]}, 126),
        ("entrypoint-option", {"Entrypoint": ["--privileged"], "Cmd": ["-v", "/:/host"]}, 127),
        ("user-text", {"User": "nobody-here"}, 125),
        ("user-path", {"User": "../../../etc/passwd"}, 125),
        ("user-negative", {"User": "-1"}, 125),
        ("user-huge", {"User": "99999999999999999999"}, 125),
        ("user-three", {"User": "0:0:0"}, 125),
        ("user-newline", {"User": "root\n"}, 125),
        ("user-colon", {"User": ":"}, 125),
        ("user-group", {"User": ":nogroup-here"}, 125),
        ("user-nul", {"User": "root\0"}, 125),
        ("user-hex", {"User": "0x0"}, 125),
        ("dir-up", {"WorkingDir": "../../../.."}, 7),
        ("dir-absolute-up", {"WorkingDir": "/../../../../tmp"}, 7),
        ("dir-file", {"WorkingDir": "/etc/passwd"}, 125),
        ("dir-link", {"WorkingDir": "/link"}, 7),
        ("dir-nul", {"WorkingDir": "/a\0b"}, 125),
        ("dir-long", {"WorkingDir": "/" + "x" * 300}, 125),
        ("dir-deep", {"WorkingDir": "/d" * 3000}, 125),
        ("dir-proc", {"WorkingDir": "/proc/self/fd/3"}, 125),
        ("volume-root", {"Volumes": {"/": {}}}, 125),
        ("volume-empty", {"Volumes": {"": {}}}, 125),
        ("volume-up", {"Volumes": {"/../../../../vol": {}}}, 7),
        ("volume-nul", {"Volumes": {"/a\0": {}}}, 125),
        ("signal-unknown", {"StopSignal": "SIGFOO"}, 125),
        ("signal-number", {"StopSignal": "99999"}, 125),
        ("ports", {"ExposedPorts": {"99999999/tcp": {}, "x/../y": None, "": 1}}, 7),
        ("health", {"Healthcheck": {"Test": ["CMD-SHELL", "exit 1"], "Interval": -5, "Retries": 10**30}}, 125),
        ("health-words", {"Healthcheck": {"Test": "x", "Interval": {}}}, 125),
        ("on-build", {"OnBuild": ["RUN rm -rf /", "FROM x"]}, 7),
    ):
        command = {"Cmd": ["/bin/sh", "-c", "exit 7"]}
        codes = (code, code) if isinstance(code, int) else code
        yield _of_config(f"run-{name}", _put("config", value=command | value), KEPT, codes)


def docker_archives() -> Iterator[Case]:
    def entry(**members: Any) -> Edit:
        return lambda document: [document["entries"][0] | members]

    for name, text in (("null", b"null"), ("object", b"{}"), ("of-null", b"[null]"), ("of-nothing", b"[{}]"),
                       ("of-lists", b"[[]]"), ("deep", _DEEP), ("text", b'"x"'), ("bom", b"\xef\xbb\xbf[]"),
                       ("cut", b'[{"Config": "c.js')):  # fmt: skip
        yield _of_docker(f"docker-{name}", lambda d, text=text: text, REFUSED)
    yield _of_docker("docker-empty", lambda d: [], INVALID)
    yield _of_docker("docker-17-mib", lambda d: [{"Config": "x" * (17 << 20)}], REFUSED)
    for name in ("", ".", "..", "/", "../../../etc/passwd", "/etc/passwd", "l", "c.json\0x", "x" * 5000, "\x1b[2J\n"):
        yield _of_docker(f"docker-config-{name[:12]!r}", entry(Config=name), MISSING)
        yield _of_docker(f"docker-layer-{name[:12]!r}", entry(Layers=[name]), MISSING)
    yield _of_docker("docker-config-null", entry(Config=None), REFUSED)
    yield _of_docker("docker-config-number", entry(Config=1), REFUSED)
    yield _of_docker("docker-config-is-the-layer", entry(Config="l/layer.tar"), REFUSED)
    yield _of_docker("docker-config-is-this", entry(Config="manifest.json"), REFUSED)
    yield _of_docker("docker-layer-is-the-config", entry(Layers=["c.json"]), REFUSED)
    yield _of_docker("docker-layers-null", entry(Layers=None), REFUSED)
    yield _of_docker("docker-layers-of-null", entry(Layers=[None]), REFUSED)
    yield _of_docker("docker-layers-text", entry(Layers="l/layer.tar"), REFUSED)
    yield _of_docker("docker-layers-many", entry(Layers=["l/layer.tar"] * 100_000), REFUSED)
    yield _of_docker("docker-tags-null", entry(RepoTags=None), KEPT)
    yield _of_docker("docker-tags-text", entry(RepoTags="x:1"), REFUSED)
    yield _of_docker("docker-tags-of-null", entry(RepoTags=[None]), REFUSED)
    long, short = "a/" * 200 + "a:1", "x@sha256:" + "a" * 63
    for tag in ("", ":", ":1", "x:", "X:1", "../x:1", "x\n:1", "x:1 y:2", "-x:1", short, long):
        yield _of_docker(f"docker-tag-{tag[:9]!r}", entry(RepoTags=[tag]), REFUSED)
    yield _of_docker("docker-tags-same", entry(RepoTags=["x:1", "docker.io/library/x:1"] * 500), KEPT)
    yield _of_docker("docker-tags-many", entry(RepoTags=[f"x:{n}" for n in range(3000)]), KEPT)
    yield _of_docker("docker-images-many", lambda d: d["entries"] * 3000, KEPT)
    yield _of_docker("docker-parent", entry(Parent="../../x", LayerSources={"sha256:x": {"size": -1}}), KEPT)
    yield _of_docker(
        "docker-last-of-two", lambda d: b'[{"Config":"/etc/passwd","Config":"c.json","Layers":["l/layer.tar"]}]', KEPT
    )
    yield _of_docker("docker-repositories", entry(), KEPT, more={"repositories": _DEEP})


def cases() -> list[Case]:
    """All of them; names are unique."""
    makers = (versions, indexes, descriptors, manifests, configurations, docker_archives)
    return [case for make in makers for case in make()]
