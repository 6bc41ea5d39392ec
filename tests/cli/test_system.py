"""``system df``, ``system check``, ``version`` and ``completion``."""

import os
import subprocess

import pytest

from .conftest import tar_of


def test_df(layerfs, small):
    lines = layerfs.lines("system", "df")
    assert lines[0].split() == ["TYPE", "TOTAL", "ACTIVE", "SIZE", "RECLAIMABLE"]
    assert lines[1].split()[:3] == ["Images", "1", "0"]
    row = (
        layerfs.json("system", "df", "--format", "json")
        if False
        else layerfs.lines("system", "df", "--format", "{{.Type}}")
    )
    assert row[0] == "Images"
    verbose = layerfs("system", "df", "-v")
    assert "SHARED SIZE" in verbose
    assert "small" in verbose
    assert "together" in layerfs.error("system", "df", "-v", "--format", "json", code=2)


def test_check_finds_damage_and_says_which_image(layerfs, small):
    assert layerfs("system", "check", "--quick") == "The store is whole.\n"
    assert layerfs("system", "check", "--format", "json") == ""
    (layer,) = [path for path in (layerfs.place / "root" / "layers").rglob("*") if path.is_file()]
    os.chmod(layer, 0o644)
    content = bytearray(layer.read_bytes())
    at = content.index(b"#!x\n#!x\n")
    content[at + 100] ^= 1
    layer.write_bytes(content)
    output = layerfs("system", "check", code=3)
    assert output.startswith(f"layer {layerfs.json('inspect', 'small:1')[0]['RootFS']['Layers'][0]}: ")
    assert "small:1" in output


def test_version(layerfs):
    assert layerfs.lines("version")[0].split() == ["Version:", layerfs("--version").split()[1]]
    assert layerfs("version", "--format", "{{.Version}}").strip() == layerfs("--version").split()[1]
    assert layerfs.json("version", "-f", "json")["Os"] == "linux"


def test_bash_completes_verbs_options_and_images(layerfs, small):
    script = layerfs("completion", "bash")

    def complete(*words):
        line = (
            f'COMP_WORDS=({" ".join(words)}); COMP_CWORD={len(words) - 1}; _layerfs; printf "%s\\n" "${{COMPREPLY[@]}}"'
        )
        stub = f'layerfs() {{ {os.sys.executable} -m layerfs "$@"; }}; compopt() {{ :; }};\n'
        result = subprocess.run(
            ["bash", "-c", stub + script + line.replace("''", "''")],
            capture_output=True,
            text=True,
            env=layerfs.environment,
        )
        return result.stdout.split()

    assert complete("layerfs", "imag") == ["images", "image"]
    assert "--no-trunc" in complete("layerfs", "images", "--")
    assert complete("layerfs", "image", "his") == ["history"]
    assert complete("layerfs", "image", "ls", "--dig") == ["--digests"]
    assert complete("layerfs", "history", "sma") == ["small:1"]


def test_completion_of_other_shells(layerfs):
    assert "complete -c layerfs" in layerfs("completion", "fish")
    assert "bashcompinit" in layerfs("completion", "zsh")
    assert "known are bash, zsh and fish" in layerfs.error("completion", "csh", code=2)


def test_a_store_of_another_format_or_without_permission(layerfs, small, tmp_path):
    found = layerfs("--layer-format", "auto", "images", "-q").strip()
    assert found
    formats = {"erofs", "dir"}
    messages = [
        layerfs.process("--layer-format", name, "images", code=code).stderr.decode()
        for name in sorted(formats)
        for code in [0 if name == _format(layerfs) else 2]
    ]
    assert sum("it has layer format" in message for message in messages) == 1
    assert layerfs("--root", tmp_path / "elsewhere", "--run", tmp_path / "run2", "images", "-q") == ""
    (tmp_path / "file").write_text("")
    message = layerfs.process("--root", tmp_path / "file" / "x", "--run", tmp_path / "run2", "images", code=1).stderr
    assert message.count(b"\n") == 1


def _format(layerfs):
    (layer,) = (layerfs.place / "root" / "layers" / "sha256").iterdir()
    return "erofs" if layer.is_file() else "dir"


@pytest.mark.parametrize("layer_format", ["erofs", "dir"])
def test_both_layer_formats_serve_the_same_verbs(layerfs, layer_format):
    layerfs("--layer-format", layer_format, "import", "-", "x", data=tar_of({"a": b"1", "l": "a"}))
    assert layerfs("cat", "x", "l") == "1"
    archive = layerfs.process("save", "x").stdout
    layerfs("rmi", "x")
    assert layerfs("load", data=archive) == "Loaded image: x:latest\n"
    assert layerfs("system", "check") == "The store is whole.\n"
