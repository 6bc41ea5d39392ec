"""``--security-opt``: seccomp profiles of the user's own, in docker's form, and paths that are not masked."""

import ctypes
import errno
import json
import os
import struct

import pytest
from boxes import box_store, needs_busybox, options, sh

from layerfs.errors import InvalidInputError, LayerfsError, UnsupportedError
from layerfs.runtime.profiles import profile_program

pytestmark = [pytest.mark.root, needs_busybox]

ALLOW = {"defaultAction": "SCMP_ACT_ALLOW"}


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    with box_store(tmp_path_factory) as store:
        yield store


@pytest.fixture
def profile(tmp_path):
    def write(document):
        (tmp_path / "profile.json").write_text(json.dumps(document))
        return [f"seccomp={tmp_path}/profile.json"]

    return write


def denying(*names, **more):
    return ALLOW | {"syscalls": [{"names": list(names), "action": "SCMP_ACT_ERRNO", **more}]}


def failed(name, number):
    return f"mkdir: can't create directory '{name}': {os.strerror(number)}\n"


def test_a_call_is_refused_and_all_others_are_not(store, runtime, profile):
    ran = sh(store, runtime, "mkdir /d; unshare -U echo a", security_opt=profile(denying("mkdir", "mkdirat")))
    assert (ran.out, ran.err) == ("a\n", failed("/d", errno.EPERM))  # our own filter refuses unshare
    assert sh(store, runtime, "mkdir /d; echo b").out == "b\n"


def test_the_error_is_that_of_the_rule(store, runtime, profile):
    chosen = profile(denying("mkdir", "mkdirat", errnoRet=errno.ENOSPC))
    assert sh(store, runtime, "mkdir /d", security_opt=chosen).err == failed("/d", errno.ENOSPC)


def test_a_list_of_what_is_allowed(store, runtime, profile):
    """What the launcher itself does until the command is executed is no matter of the profile."""
    allowed = (
        "arch_prctl brk clone execve exit_group fork getpid mmap mprotect munmap read rt_sigaction rt_sigprocmask "
    )
    allowed += "set_tid_address uname vfork wait4 write writev getuid getgid geteuid getegid getppid open openat close "
    allowed += "fcntl stat fstat newfstatat getcwd readlink prlimit64 getrandom set_robust_list rseq ioctl "
    if runtime != "builtin":
        allowed += "faccessat fstatfs epoll_ctl epoll_pwait futex getdents64 nanosleep prctl tgkill sendmsg lseek"
    chosen = {
        "defaultAction": "SCMP_ACT_ERRNO",
        "defaultErrnoRet": errno.EDOM,
        "syscalls": [{"names": allowed.split(), "action": "SCMP_ACT_ALLOW"}],
    }
    ran = sh(store, runtime, "echo here; mkdir /d", security_opt=profile(chosen))
    assert (ran.out, ran.err) == ("here\n", failed("/d", errno.EDOM))


def test_arguments(store, runtime, profile):
    """Two conditions on one argument are two rules, as runc has it."""
    sticky = {"index": 1, "value": 0o1000, "valueTwo": 0o1000, "op": "SCMP_CMP_MASKED_EQ"}
    chosen = profile(denying("chmod", args=[sticky]))
    script = "touch /f; chmod 1700 /f; chmod 755 /f; chmod 640 /f; stat -c %a /f"
    assert sh(store, runtime, script, security_opt=chosen).out == "640\n"
    assert "Operation not permitted" in sh(store, runtime, "touch /f; chmod 1700 /f", security_opt=chosen).err
    either = [{"index": 1, "value": mode, "op": "SCMP_CMP_EQ"} for mode in (0o700, 0o755)]
    ran = sh(store, runtime, script, security_opt=profile(denying("chmod", args=either)))
    assert (ran.out, ran.err.count("Operation not permitted")) == ("640\n", 1)


def test_rules_for_some_capabilities_kernels_and_machines(store, runtime, profile):
    def refused(**flags):
        return "can't create" in sh(store, runtime, "mkdir /d", **flags).err

    rule = {"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO"}
    for key in ("includes", "excludes"):
        wanted = key == "includes"
        chosen = profile(ALLOW | {"syscalls": [rule | {key: {"caps": ["CAP_SYS_TIME"]}}]})
        assert refused(security_opt=chosen, cap_add=["SYS_TIME"]) is wanted
        assert refused(security_opt=chosen) is not wanted
        chosen = profile(ALLOW | {"syscalls": [rule | {key: {"minKernel": "4.8"}}]})
        assert refused(security_opt=chosen) is wanted
        chosen = profile(ALLOW | {"syscalls": [rule | {key: {"minKernel": "99.1"}}]})
        assert refused(security_opt=chosen) is not wanted
        chosen = profile(ALLOW | {"syscalls": [rule | {key: {"arches": ["sparc"]}}]})
        assert refused(security_opt=chosen) is not wanted


def test_calls_that_are_newer_than_the_profile_are_not_there():
    """Programs fall back to an older call then; a refusal they would take for the answer. As runc has it."""
    calls = [{"names": ["exit_group", "faccessat2"], "action": "SCMP_ACT_ALLOW"}]
    program = profile_program(json.dumps({"defaultAction": "SCMP_ACT_ERRNO", "syscalls": calls}), 0)
    code = ctypes.create_string_buffer(program)
    filter = struct.pack("HxxxxxxP", len(program) // 8, ctypes.addressof(code))
    call = ctypes.CDLL(None, use_errno=True).syscall
    child = os.fork()
    if child == 0:
        call(ctypes.c_long({"x86_64": 157, "aarch64": 167}[os.uname().machine]), 38, 1, 0, 0, 0)  # no_new_privs
        call(ctypes.c_long({"x86_64": 317, "aarch64": 277}[os.uname().machine]), 1, 0, filter)
        call(ctypes.c_long(172))  # getpid or iopl: older than faccessat2, which is 439 everywhere
        old = ctypes.get_errno()
        call(ctypes.c_long(4000))
        os._exit(0 if (old, ctypes.get_errno()) == (errno.EPERM, errno.ENOSYS) else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_the_machines_sub_architectures(store, runtime, profile):
    maps = [
        {"architecture": "SCMP_ARCH_X86_64", "subArchitectures": ["SCMP_ARCH_X86", "SCMP_ARCH_X32"]},
        {"architecture": "SCMP_ARCH_AARCH64", "subArchitectures": ["SCMP_ARCH_ARM"]},
    ]
    ran = sh(store, runtime, "mkdir /d; echo on", security_opt=profile(denying("mkdir", "mkdirat") | {"archMap": maps}))
    assert (ran.out, ran.err) == ("on\n", failed("/d", errno.EPERM))


def test_exec_is_filtered_too(store, runtime, profile):
    ran = sh(store, runtime, "grep Seccomp: /proc/self/status", security_opt=profile({}))
    assert ran.out.split() == ["Seccomp:", "0"]  # a profile that says nothing, as with docker
    chosen = profile(denying("mkdir", "mkdirat"))
    container = store.containers.start(options("sleep", "60", runtime=runtime, security_opt=chosen))
    try:
        assert container.exec(["mkdir", "/d"]) == 1
        assert container.exec(["true"]) == 0
        shown = container.inspect()["HostConfig"]["SecurityOpt"]
        assert shown[0].startswith('seccomp={"defaultAction"')
    finally:
        container.remove(force=True)


def test_with_init_and_with_setuid_programs(store, runtime, profile):
    chosen = profile(denying("mkdir", "mkdirat"))
    assert sh(store, runtime, "mkdir /d", init=True, security_opt=chosen).err == failed("/d", errno.EPERM)
    more = [*chosen, "no-new-privileges=false"]
    assert sh(store, runtime, "mkdir /d", security_opt=more).err == failed("/d", errno.EPERM)


def test_privileged_has_the_filter_that_was_asked_for(store, runtime, profile):
    chosen = profile(denying("mkdir", "mkdirat"))
    ran = sh(store, runtime, "mkdir /d", privileged=True, security_opt=chosen)
    assert ran.err == failed("/d", errno.EPERM)
    assert sh(store, runtime, "unshare -U echo a", security_opt=["seccomp=builtin"]).out == ""


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ("no JSON", "not a seccomp profile"),
        ([1], "not a seccomp profile"),
        ({"defaultAction": "SCMP_ACT_MAYBE"}, "unknown action 'SCMP_ACT_MAYBE'"),
        (ALLOW | {"syscalls": [{"names": ["read"]}]}, "unknown action ''"),
        (ALLOW | {"syscalls": "read"}, "not a seccomp profile"),
        (ALLOW | {"architectures": ["SCMP_ARCH_PDP11"]}, "unknown architecture"),
        (ALLOW | {"architectures": ["SCMP_ARCH_X86"], "archMap": [{"architecture": "SCMP_ARCH_X86"}]}, "both 'arch"),
        (ALLOW | {"syscalls": [{"name": "a", "names": ["b"], "action": "SCMP_ACT_LOG"}]}, "both 'name' and 'names'"),
        (denying("read", args=[{"index": 6, "op": "SCMP_CMP_EQ"}]), "argument 6"),
        (denying("read", args=[{"index": 1, "op": "EQ"}]), "argument 1 'EQ'"),
        (denying("read", args=[{"index": 1, "value": -1, "op": "SCMP_CMP_EQ"}]), "out of range"),
        (denying("read", includes={"minKernel": "new"}), "kernel version 'new'"),
    ],
)
def test_what_is_no_profile(store, tmp_path, document, message):
    text = document if isinstance(document, str) else json.dumps(document)
    (tmp_path / "profile.json").write_text(text)
    with pytest.raises(InvalidInputError, match=message):
        sh(store, "builtin", "true", security_opt=[f"seccomp={tmp_path}/profile.json"])


def test_what_is_not_offered_and_what_is_not_there(store, tmp_path, profile):
    with pytest.raises(UnsupportedError, match="NOTIFY"):
        sh(store, "builtin", "true", security_opt=profile({"defaultAction": "SCMP_ACT_NOTIFY"}))
    with pytest.raises(UnsupportedError, match="flags"):
        sh(store, "builtin", "true", security_opt=profile(ALLOW | {"flags": ["SECCOMP_FILTER_FLAG_LOG"]}))
    with pytest.raises(LayerfsError, match=r"seccomp=.*/none\.json: read it: No such file"):
        sh(store, "builtin", "true", security_opt=[f"seccomp={tmp_path}/none.json"])


def test_paths_that_are_not_masked(store, runtime):
    # The value of this very setting, so that nothing changes.
    script = "cat /proc/sys/kernel/panic >/tmp/v; cat /tmp/v >/proc/sys/kernel/panic && echo written; ls /sys/firmware"
    assert "written" not in sh(store, runtime, script).out
    ran = sh(store, runtime, script, security_opt=["systempaths=unconfined"])
    assert ran.out.split()[0] == "written"
    assert ran.err == ""
    with pytest.raises(UnsupportedError, match="systempaths=some"):
        sh(store, runtime, "true", security_opt=["systempaths=some"])
