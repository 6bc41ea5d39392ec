"""Known vulnerabilities of builders: what a Dockerfile, a context or a base image cannot reach."""

import pytest
import tarbuild as tar
from boxes import add_box, needs_busybox
from cvekit import Host, host

__all__ = ["host"]

pytestmark = [pytest.mark.root, needs_busybox]


class Builder:
    def __init__(self, host: Host, *more: bytes) -> None:
        self.host, self.context = host, host.place / "context"
        self.context.mkdir()
        with host.store() as store:
            add_box(store, host.place, *more)

    def __call__(self, text: str, *words: object) -> object:
        (self.context / "Dockerfile").write_text(text)
        return self.host("build", "-t", "built:1", *words, self.context)

    def read(self, path: str) -> bytes:
        with self.host.store() as store, store.view("built:1") as view:
            return b"".join(view.read(path.encode()))

    def has(self, path: str) -> bool:
        with self.host.store() as store, store.view("built:1") as view:
            return any(entry.path.decode().strip("/") == path.strip("/") for entry in view.walk())


def test_cve_2014_9356_copy_and_workdir_stay_in_the_image(host: Host) -> None:
    build = Builder(host, tar.symlink("out", str(host.outside)))
    (build.context / "f").write_text("evil")
    build("FROM box\nCOPY f /out/victim\nWORKDIR /out/etc\nRUN echo evil > shadow\n")
    said = build("FROM box\nCOPY f ../../../../../../x\n")
    assert said.code == 0, said
    assert build.read("/x") == b"evil"


@pytest.mark.parametrize("source", ["../outside/victim", "/../outside/victim", "link", "dir/victim"])
def test_cve_2020_10696_a_context_does_not_lead_out(host: Host, source: str) -> None:
    build = Builder(host)
    (build.context / "link").symlink_to(host.outside / "victim")
    (build.context / "dir").symlink_to(host.outside)
    said = build(f"FROM box\nCOPY {source} /got\n")
    if said.code == 0:
        with host.store() as store, store.view("built:1") as view:
            assert view.stat(b"/got").target or b"precious" not in b"".join(view.read(b"/got"))


def test_cve_2020_10696_a_tar_that_add_unpacks(host: Host) -> None:
    build = Builder(host)
    (build.context / "a.tar").write_bytes(tar.archive(tar.symlink("l", str(host.outside)), tar.file("l/victim", b"x")))
    assert build("FROM box\nADD a.tar /\n").code != 0


@pytest.mark.parametrize("name", [".dockerignore", "Dockerfile.dockerignore", ".containerignore"])
def test_cve_2022_4122_an_ignore_file_is_not_read_on_the_host(host: Host, name: str) -> None:
    """CVE-2022-4122, CVE-2022-4123: neither is its content applied or shown, nor its path."""
    build = Builder(host)
    (host.place / "patterns").write_text("[secret-pattern\n")
    (build.context / name).symlink_to(host.place / "patterns")
    (build.context / "f").write_text("x")
    said = build("FROM box\nCOPY f /f\n")
    assert "secret-pattern" not in said.out + said.err


def test_cve_2026_44517_a_dockerfile_that_is_a_link_out_of_the_context(host: Host) -> None:
    build = Builder(host)
    (build.context / "Dockerfile").symlink_to(host.outside / "victim")
    said = host("build", "-t", "x", build.context)
    assert said.code != 0
    assert (host.outside / "victim").read_bytes() == b"precious"


@pytest.mark.parametrize(
    "url", ["git://-oProxyCommand=touch%20executed/x", "https://127.0.0.1:1/x.git#--upload-pack=touch executed"]
)
def test_cve_2019_13139_a_git_reference_is_no_option(host: Host, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(host.place)
    with host.store():
        pass
    assert host("build", "-t", "x", url).code != 0
    assert not (host.place / "executed").exists()


@pytest.mark.parametrize("link", ["/link", "/link/etc", "/up"])
def test_cve_2024_1753_a_mount_source_is_looked_up_in_its_image(host: Host, link: str) -> None:
    build = Builder(host, tar.symlink("link", str(host.outside)), tar.symlink("up", "../" * 30 + str(host.outside)[1:]))
    said = build(
        f"FROM box\nRUN --mount=type=bind,from=box,source={link},target=/mnt cat /mnt/victim /mnt/shadow > /got; true\n"
    )
    if said.code == 0:
        assert build.read("/got") == b""


@pytest.mark.parametrize("option", ["bind-propagation=shared,exec,dev", "bind-propagation=rslave", "upperdir=/etc"])
def test_cve_2024_9407_mount_options_are_known_ones(host: Host, option: str) -> None:
    build = Builder(host)
    assert build(f"FROM box\nRUN --mount=type=bind,{option},target=/mnt true\n").code != 0


@pytest.mark.parametrize("target", ["/link/etc/new", "/link/victim", "/link/new/deep"])
def test_cve_2024_23652_mount_points_are_made_and_removed_in_the_image(host: Host, target: str) -> None:
    """Neither what is made for a mount nor what is tidied up after it is the host's, whatever a link says."""
    build = Builder(host, tar.symlink("link", str(host.outside)))
    build(f"FROM box\nRUN --mount=type=tmpfs,target={target} rm -rf /link; ln -s {host.outside} /link; true\n")
    build(f"FROM box\nRUN --mount=type=cache,target={target} true\n")


def test_cve_2024_23651_a_path_in_a_cache_mount_is_beneath_it(host: Host) -> None:
    build = Builder(host)
    assert build(f"FROM box\nRUN --mount=type=cache,id=c,target=/c ln -s {host.outside} /c/sub\n").code == 0
    said = build(
        "FROM box\nRUN --mount=type=cache,id=c,source=sub,target=/c cat /c/victim > /got; echo evil > /c/victim; true\n"
    )
    if said.code == 0:
        assert build.read("/got") == b""


def test_cve_2024_23653_no_privilege_without_being_asked(host: Host) -> None:
    build = Builder(host)
    said = build("FROM box\nRUN --security=insecure mount -t tmpfs x /mnt\n")
    assert said.code != 0
    assert build("FROM box\nRUN mount -t tmpfs x /tmp\n").code != 0


@pytest.mark.parametrize(
    "text",
    [
        "FROM box\nRUN --mount=type=\n",
        "FROM box\nCOPY --from=\n",
        "FROM\n",
        "FROM box\nRUN --mount\n",
        "FROM --platform= box\n",
    ],
)
def test_cve_2024_23650_a_malformed_request_is_an_error(host: Host, text: str) -> None:
    assert Builder(host)(text).code != 0


def test_cve_2021_3602_the_environment_of_the_host_stays_out(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOST_SECRET", "swordfish")
    build = Builder(host)
    said = build("FROM box\nRUN env > /e; cat /proc/1/environ > /p; cat /proc/*/environ > /a 2>/dev/null; true\n")
    assert said.code == 0, said
    for name in ("e", "p", "a"):
        assert b"swordfish" not in build.read(f"/{name}")


@pytest.mark.parametrize(
    "line", ["HEALTHCHECK CMD evil", "ONBUILD RUN evil", "USER 0", "ENV A=evil", 'ENTRYPOINT ["evil"]']
)
def test_cve_2024_24557_a_cached_layer_carries_no_configuration(host: Host, line: str) -> None:
    """The same RUN after other instructions is the same layer at most, never the other's configuration."""
    build = Builder(host)
    assert build(f"FROM box\n{line}\nRUN echo a > /a\n").code == 0
    assert build("FROM box\nRUN echo a > /a\n").code == 0
    with host.store() as store:
        assert b"evil" not in store.images.get("built:1").config_bytes


def test_cve_2024_24557_scratch_is_nobody_s_parent(host: Host) -> None:
    build = Builder(host)
    (build.context / "f").write_text("one")
    assert build("FROM scratch\nCOPY f /f\n").code == 0
    (build.context / "f").write_text("two")
    assert build("FROM scratch\nCOPY f /f\n").code == 0
    assert build.read("/f") == b"two"


def test_removing_and_platforms_name_no_files_of_the_host(host: Host) -> None:
    """Hardening of buildkit in 2026: `..` in a removal, and a platform that is used as a file name."""
    build = Builder(host)
    build(f"FROM box\nRUN rm -rf {'../' * 30}{str(host.outside)[1:]}/etc\n")
    assert build("FROM --platform=../../../x/y box\n").code != 0
    assert host("build", "--platform", "../../outside/x", build.context).code != 0
