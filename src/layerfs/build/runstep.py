"""RUN: what its mounts mean, the key of what it makes, and the layer."""

import errno
import hashlib
import os
import posixpath
import stat
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import msgspec

from layerfs import native
from layerfs.build.cache import CacheRecord, cache_key
from layerfs.build.cachemounts import CacheMounts
from layerfs.build.copying import CopyFlags, gather, known_content
from layerfs.build.copystep import keep_layer
from layerfs.build.instructions import Mount, Run
from layerfs.build.parser import parse_mount
from layerfs.build.pieces import Pieces, Source
from layerfs.build.placing import lay_out, write_layer
from layerfs.build.plan import PROXIES
from layerfs.build.running import Command
from layerfs.build.secrets import agent_socket, forwarded, secret_value, set_owner
from layerfs.build.session import Session, Step
from layerfs.build.state import StageState
from layerfs.build.tree import Cursor, Names, Tree
from layerfs.digest import Digest
from layerfs.errors import InvalidInputError, NativeError, NotFoundError, system_errors
from layerfs.runtime import MountSpec
from layerfs.variables import split_words

__all__ = ["run_step"]

_SECRETS = "/run/secrets"
_SSH = "/run/buildkit/ssh_agent."
_SCRIPTS = "/dev/pipes"
_NOWHERE: Names = ()
_BOUND: Names = (b"bound",)
_UNITS = {"k": 10, "m": 20, "g": 30, "t": 40}


class _Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """A mount whose words are known."""

    type: str
    target: str
    options: dict[str, str]
    tree: Tree | None = None
    names: Names = ()
    status: native.Status | None = None


def run_step(
    session: Session, state: StageState, run: Run, stage: int, step: Step, *, use_cache: bool
) -> tuple[Digest, str, bool]:
    """The layer of a RUN, when it was made, and whether it was there. LayerfsError with the reason."""
    args, script = _arguments(state, run)
    arguments = state.visible_arguments()
    insecure = run.security == "insecure"
    if insecure and "security.insecure" not in session.options.allow:
        raise InvalidInputError("--security=insecure is not allowed", hint="allow it: --allow security.insecure")
    network = run.network if run.network != "default" else session.options.network
    network = "host" if network == "default" else network
    wanted = [_wanted(session, state, mount, stage, number) for number, mount in enumerate(run.mounts)]
    env = [*(f"{name}={value}" for name, value in arguments.items()), *(state.section.get("Env") or [])]
    user = str(state.section.get("User") or "")
    key = cache_key(
        "run", state.stack, args, script, env, user, state.directory, network, insecure, session.clamp,
        str(state.platform), [_mount_key(session, each) for each in wanted],
    )  # fmt: skip
    found = session.cache.find(key) if use_cache else None
    if found is not None and found.layer is not None:
        return found.layer, found.created, True
    with ExitStack() as stack:
        opened = _Mounts(session, stack)
        for number, each in enumerate(wanted):
            opened.add(each, number)
        if script is not None:
            opened.add_script(args[0], script)
        # Programs look for either spelling; only one is given as a rule.
        given = {name: value for name, value in session.given.items() if name in PROXIES}
        given = {name.swapcase(): value for name, value in given.items()} | given
        hidden = {entry.partition("=")[0] for entry in env}
        proxies = [f"{name}={value}" for name, value in given.items() if name not in hidden]
        command = Command(
            args=args,
            env=(*proxies, *env, *opened.env),
            cwd=state.directory,
            user=user,
            mounts=tuple(opened.mounts),
            network=network,
            insecure=insecure,
        )
        layer = session.runner.run(state.stack, command, lambda line: session.progress.output(step.number, line))
    created = session.moment()
    session.cache.keep(key, CacheRecord(layer.diff_id, created, run.line.text[:200]))
    return layer.diff_id, created, False


def _arguments(state: StageState, run: Run) -> tuple[tuple[str, ...], str | None]:
    """What is executed, and the script that has to be there for it."""
    if not run.shell:
        return run.args, None
    text = run.args[0]
    heredocs = run.line.heredocs
    if heredocs:
        alone = len(heredocs) == 1 and text.startswith("<<") and len(split_words(text, state.escape)) == 1
        if alone and heredocs[0].text.startswith("#!"):
            return (f"{_SCRIPTS}/{heredocs[0].name}",), heredocs[0].text
        text = heredocs[0].text if alone else "\n".join([text, *(each.text + each.name for each in heredocs)])
    return (*state.shell, text), None


def _wanted(session: Session, state: StageState, mount: Mount, stage: int, number: int) -> _Wanted:
    options = {name: state.expand(value) for name, value in mount.options.items()}
    if "$" in mount.type:
        words = {"type": state.expand(mount.type), **options}
        mount = parse_mount(",".join(f"{name}={value}" for name, value in words.items()))
        options = mount.options
    target = options.get("target", "")
    if mount.type == "secret" and not target and not options.get("env"):
        target = f"{_SECRETS}/{options['id']}"
    if mount.type == "ssh" and not target:
        target = f"{_SSH}{number}"
    if target:
        target = posixpath.normpath(posixpath.join(state.directory, target))
        if target == "/":
            raise InvalidInputError("--mount: nothing can be mounted at /")
    tree, names, status = None, _NOWHERE, None
    if mount.type == "bind" or (mount.type == "cache" and "from" in options):
        tree = session.source(options["from"], stage) if "from" in options else session.context
        names, status = tree.resolve(options.get("source", "/"))
    return _Wanted(type=mount.type, target=target, options=options, tree=tree, names=names, status=status)


def _mount_key(session: Session, mount: _Wanted) -> list[Any]:
    """What of a mount the result depends on: not what a cache holds, not a secret's value."""
    options = {name: value for name, value in mount.options.items() if name not in ("from",)}
    key: list[Any] = [mount.type, mount.target, sorted(options.items())]
    if mount.tree is not None:  # also what a cache begins with
        key.append(mount.tree.identity or _content(session, mount).hex())
    return key


def _content(session: Session, mount: _Wanted) -> bytes:
    """What the files to bind come down to."""
    asked = [_source(mount)], CopyFlags(), session.keeper.memory, session.warn
    return known_content(*asked) or gather(*asked)


def _source(mount: _Wanted) -> Source:
    assert mount.status is not None
    return Source(_BOUND, mount.tree, mount.names, mount.status)


def _is_on(options: Mapping[str, str], name: str) -> bool:
    return options.get(name, "false").lower() in ("true", "1")


class _Mounts:
    """Makes mounts for one command; all of it goes with ``stack``."""

    def __init__(self, session: Session, stack: ExitStack) -> None:
        self.session = session
        self.stack = stack
        self.mounts: list[MountSpec] = []
        self.env: list[str] = []
        self._private: Path | None = None

    @property
    def private(self) -> Path:
        if self._private is None:
            self._private = self.session.runner.private_directory()
        return self._private

    def add(self, mount: _Wanted, number: int) -> None:
        getattr(self, f"_{mount.type}")(mount, number)

    def _put(self, mount: _Wanted, source: str | int, *, is_dir: bool, readonly: bool) -> None:
        if isinstance(source, int) and (self.session.runner.runtime != "builtin" or self.session.options.debug_shell):
            # Another program wants a path, and a shell after the command the same mount once more.
            place = self.private / f"mount-{len(self.mounts)}"
            with system_errors(f"make {place}"):
                place.mkdir() if is_dir else place.touch()
            native.attach(source, place)
            self.stack.callback(native.detach, place, lazy=True)
            source = str(place)
        self.mounts.append(
            MountSpec(type="bind", source=source, target=mount.target, is_dir=is_dir, readonly=readonly, exec=True)
        )

    # ---- bind ----

    def _bind(self, mount: _Wanted, number: int) -> None:
        assert mount.tree is not None
        assert mount.status is not None
        is_dir = stat.S_ISDIR(mount.status.st_mode)
        if not (is_dir or stat.S_ISREG(mount.status.st_mode)):
            raise InvalidInputError(f"--mount: {mount.options.get('source')} is neither a directory nor a file")
        tree, names = mount.tree, mount.names
        if tree.identity is None:
            tree, names = self._frozen(mount), _BOUND
        fd = self._opened(tree.fd, names, is_dir)
        try:
            source = native.bind_mount(fd, "", recursive=False, readonly=True)
        except NativeError as exc:
            if exc.errno != errno.EINVAL:
                raise
            fd = self._placed(tree, names, is_dir)
            source = native.bind_mount(fd, "", recursive=False, readonly=True)
        self.stack.callback(os.close, source)
        writable = _is_on(mount.options, "rw")
        self._put(
            mount, self._writable(fd, is_dir, number) if writable else source, is_dir=is_dir, readonly=not writable
        )

    def _placed(self, tree: Tree, names: Names, is_dir: bool) -> int:
        """As ``_opened``, in a mount that is attached: before Linux 6.15 no part of a detached one can be bound."""
        place = self.private / f"view-{len(self.mounts)}"
        view = self.session.parts.snapshots.view(tree.stack or ())
        self.stack.callback(os.close, view)
        with system_errors(f"make {place}"):
            place.mkdir()
        native.attach(view, place)
        self.stack.callback(native.detach, place, lazy=True)
        root = os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self.stack.callback(os.close, root)
        return self._opened(root, names, is_dir)

    def _frozen(self, mount: _Wanted) -> Tree:
        """What a command sees of the context is what the key was made of: without what is left out, without sockets,
        and unchanged while it runs."""
        session = self.session
        with Pieces(session.parts.ingest.root) as pieces:
            digest = gather([_source(mount)], CopyFlags(), session.keeper.memory, session.warn, pieces)
            key = cache_key("bind", digest.hex())
            record = session.cache.find(key)
            if record is None or record.layer is None:
                placed = lay_out(None, "/", pieces, CopyFlags(), many=True)
                layer = keep_layer(session, write_layer(session.parts.layers, placed, session.lease.protect))
                record = CacheRecord(layer.diff_id, session.moment(), "bind mount of the context")
                session.cache.keep(key, record)
        assert record.layer is not None
        return self.session.keeper.layers([record.layer], "the build context")

    def _opened(self, root: int, names: Names, is_dir: bool) -> int:
        with system_errors("mount"), Cursor(root) as cursor:
            fd = os.dup(cursor.at(names)) if is_dir else cursor.open(names)
        self.stack.callback(os.close, fd)
        return fd

    def _writable(self, fd: int, is_dir: bool, number: int) -> int:
        """The same, to be written to; what is written is thrown away."""
        work = self.stack.enter_context(self.session.parts.ingest.directory("build-mount"))
        with system_errors("mount for writing"):
            if not is_dir:
                with open(fd, "rb", closefd=False) as source, open(work / "file", "wb") as copy:
                    while piece := source.read(1 << 20):
                        copy.write(piece)
                    os.fchmod(copy.fileno(), os.fstat(fd).st_mode & 0o7777)
                opened = os.open(work / "file", os.O_PATH | os.O_CLOEXEC)
                self.stack.callback(os.close, opened)
                mounted = native.bind_mount(opened, "", recursive=False)
            else:
                fds = [fd]
                for name in ("upper", "work", "empty"):
                    (work / name).mkdir()
                    fds.append(os.open(work / name, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC))
                    self.stack.callback(os.close, fds[-1])
                status = os.fstat(fd)
                os.chown(work / "upper", status.st_uid, status.st_gid)
                os.chmod(work / "upper", status.st_mode & 0o7777)
                mounted = native.overlay_mount([fds[0], fds[3]], fds[1], fds[2], volatile=True)
        self.stack.callback(os.close, mounted)
        return mounted

    # ---- cache, tmpfs ----

    def _cache(self, mount: _Wanted, number: int) -> None:
        options = mount.options
        sharing = options.get("sharing", "shared")
        namespace = self.session.given.get("BUILDKIT_CACHE_MOUNT_NS", "")
        id = options.get("id") or mount.target
        seed = None
        if mount.tree is not None:
            seed = self._opened(mount.tree.fd, mount.names, True)
            id = f"{id} from {mount.tree.identity}"
        mounts = CacheMounts(self.session.parts.root, self.session.parts.database)
        place = self.stack.enter_context(
            mounts.open(
                f"{namespace}/{id}" if namespace else id,
                sharing,
                seed,
                int(options.get("mode", "755"), 8),
                int(options.get("uid", "0")),
                int(options.get("gid", "0")),
            )
        )
        source: str | int = str(place)
        if mount.tree is None and options.get("source"):
            source = self._below(place, options["source"])
        self._put(mount, source, is_dir=True, readonly=_is_on(options, "ro"))

    def _below(self, place: Path, path: str) -> int:
        """A mount of a directory inside a cache, made where it is missing; no link in it is followed."""
        fd = os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self.stack.callback(os.close, fd)
        with system_errors(f"open {path} in the cache"):
            for part in path.split("/"):
                if part in ("", "."):
                    continue
                if part == "..":
                    raise InvalidInputError(f"--mount: source={path} leaves the cache")
                with suppress(FileExistsError):
                    os.mkdir(part, 0o755, dir_fd=fd)
                fd = os.open(part, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=fd)
                self.stack.callback(os.close, fd)
        mounted = native.bind_mount(fd, "", recursive=False)
        self.stack.callback(os.close, mounted)
        return mounted

    def _tmpfs(self, mount: _Wanted, number: int) -> None:
        size = mount.options.get("size")
        self.mounts.append(
            MountSpec(type="tmpfs", target=mount.target, size=_bytes(size) if size else None, mode=0o1777, exec=True)
        )

    # ---- secrets ----

    def _secret(self, mount: _Wanted, number: int) -> None:
        options = mount.options
        id = options.get("id") or posixpath.basename(mount.target) or options.get("env", "")
        data = secret_value(self.session.options, self.session.environment, id)
        if data is None:
            if _is_on(options, "required"):
                raise NotFoundError(f"secret {id}: it is required", hint=f"give it with --secret id={id},src=FILE")
            return
        if options.get("env"):
            self.env.append(f"{options['env']}={data.decode('utf-8', 'surrogateescape')}")
        if mount.target:
            path = self.private / f"secret-{number}"
            with system_errors(f"write secret {id}"):
                fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
                with open(fd, "wb") as file:
                    file.write(data)
                    set_owner(file.fileno(), options, "400")
            self._put(mount, str(path), is_dir=False, readonly=True)

    def _ssh(self, mount: _Wanted, number: int) -> None:
        id = mount.options.get("id", "default")
        given = self.session.options.ssh
        path = given.get(id) or (self.session.environment.get("SSH_AUTH_SOCK") if id in given else None)
        if not path:
            if _is_on(mount.options, "required"):
                raise NotFoundError(f"ssh {id}: there is no agent's socket", hint=f"give one with --ssh {id}=SOCKET")
            return
        agent = self.stack.enter_context(agent_socket(id, path, self.private))
        own = self.private / f"ssh-{number}"
        self.stack.enter_context(forwarded(agent, own))
        set_owner(own, mount.options, "600")
        self._put(mount, str(own), is_dir=False, readonly=False)
        self.env.append(f"SSH_AUTH_SOCK={mount.target}")

    def add_script(self, path: str, text: str) -> None:
        """A heredoc that says by its first line what runs it."""
        place = self.private / f"script-{hashlib.sha256(text.encode()).hexdigest()[:12]}"
        with system_errors("write the script"):
            place.write_text(text)
            place.chmod(0o755)
        self.mounts.append(
            MountSpec(type="bind", source=str(place), target=path, is_dir=False, readonly=True, exec=True)
        )


def _bytes(text: str) -> int:
    number = text.lower().rstrip("b")
    unit = _UNITS.get(number[-1:], 0)
    size = int(number.rstrip("kmgt")) << unit
    if size >= 1 << 63:
        raise InvalidInputError(f"--mount: size={text}: too large")
    return size


def shown_command(state: StageState, run: Run) -> str:
    """A RUN as history has it."""
    text = " ".join(run.args) if not run.shell else " ".join((*state.shell, run.args[0]))
    if run.line.heredocs and run.shell:
        text = " ".join((*state.shell, _arguments(state, run)[0][-1]))
    arguments = state.visible_arguments()
    if not arguments:
        return f"RUN {text}"
    shown = " ".join(f"{name}={value}" for name, value in arguments.items())
    return f"RUN |{len(arguments)} {shown} {text}"
