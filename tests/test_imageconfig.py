"""What each instruction does to a configuration: to an empty one, to one that has something, and what it refuses."""

import pytest

from layerfs.errors import InvalidInputError
from layerfs.imageconfig import apply_changes, edit_section

BASE = {
    "Cmd": ["c"],
    "Env": ["A=1", "ALONE", "B=2"],
    "Labels": {"a": "1"},
    "ExposedPorts": {"80/tcp": {}},
    "Volumes": {"/v": {}},
    "OnBuild": ["RUN a"],
    "Shell": ["/s", "-x"],
    "WorkingDir": "/w",
}

CHANGES = [
    ("CMD x y", {"Cmd": ["/s", "-x", "x y"]}),
    ('CMD ["x", "y"]', {"Cmd": ["x", "y"]}),
    ("ENTRYPOINT x", {"Entrypoint": ["/s", "-x", "x"], "Cmd": None}),
    ('CMD ["d"]\nENTRYPOINT ["e"]', {"Entrypoint": ["e"], "Cmd": ["d"]}),
    ("ENV B=3 C=$A A=4 ALONE=5", {"Env": ["A=4", "ALONE=5", "B=3", "C=1"]}),
    ("ENV B a  b", {"Env": ["A=1", "ALONE", "B=a  b"]}),
    ("LABEL b=$A", {"Labels": {"a": "1", "b": "1"}}),
    ("LABEL a=2", {"Labels": {"a": "2"}}),
    ("EXPOSE 90/UDP 79", {"ExposedPorts": {"79/tcp": {}, "80/tcp": {}, "90/udp": {}}}),
    ("EXPOSE 7-9", {"ExposedPorts": {"7/tcp": {}, "8/tcp": {}, "9/tcp": {}, "80/tcp": {}}}),
    ('VOLUME ["/x", "/$B"]', {"Volumes": {"/v": {}, "/x": {}, "/2": {}}}),
    ("VOLUME /x /y", {"Volumes": {"/v": {}, "/x": {}, "/y": {}}}),
    ("WORKDIR x/../$B", {"WorkingDir": "/w/2"}),
    ("WORKDIR //x", {"WorkingDir": "/x"}),
    ("USER 1:$B", {"User": "1:2"}),
    ("STOPSIGNAL SIGRTMIN+$B", {"StopSignal": "SIGRTMIN+2"}),
    ("STOPSIGNAL 64", {"StopSignal": "64"}),
    ("ONBUILD RUN b", {"OnBuild": ["RUN a", "RUN b"]}),
    ('SHELL ["/t"]\nCMD x', {"Shell": ["/t"], "Cmd": ["/t", "x"]}),
    ("HEALTHCHECK NONE", {"Healthcheck": {"Test": ["NONE"]}}),
    ("HEALTHCHECK CMD x y", {"Healthcheck": {"Test": ["CMD-SHELL", "x y"]}}),
    (
        'HEALTHCHECK --interval=1m1.5s --timeout=2ms --start-period=0 --start-interval=1h --retries=4 CMD ["x"]',
        {
            "Healthcheck": {
                "Test": ["CMD", "x"],
                "Interval": 61_500_000_000,
                "Timeout": 2_000_000,
                "StartPeriod": 0,
                "StartInterval": 3600 * 10**9,
                "Retries": 4,
            }
        },
    ),
]


@pytest.mark.parametrize(("text", "wanted"), CHANGES)
def test_what_an_instruction_does(text, wanted):
    whole = {name: value for name, value in (BASE | wanted).items() if value is not None}
    assert apply_changes({"config": BASE}, [text])["config"] == whole


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("ENV $NONE=1", "a variable needs a name"),
        ("LABEL $NONE=1", "a label needs a name"),
        ("ENV a", "has no value"),
        ("ENV a=1 b", "not of the form"),
        ("EXPOSE 1-65535/tcp 1-65535/udp", "too many ports"),
        ("EXPOSE 0", "not a port"),
        ("EXPOSE 9-8", "not a port"),
        ("EXPOSE 65536", "not a port"),
        ('VOLUME [" "]', "must not be empty"),
        ("VOLUME []", "must not be empty"),
        ("USER a b", "exactly one"),
        ("STOPSIGNAL 65", "not a signal"),
        ("STOPSIGNAL SIGNO", "not a signal"),
        ("ONBUILD FROM a", "not allowed as a trigger"),
        ("SHELL []", "wants a JSON list"),
        ("HEALTHCHECK NONE x", "wants NONE, or"),
        ("HEALTHCHECK --retries=1 NONE", "wants NONE, or"),
        ("HEALTHCHECK CMD", "wants NONE, or"),
        ("HEALTHCHECK --retries=2147483648 CMD x", "not a number"),
        ("HEALTHCHECK --retries=a CMD x", "not a number"),
        ("HEALTHCHECK --timeout=5 CMD x", "not a duration"),
        ("HEALTHCHECK --timeout=0.5ms CMD x", "less than 1ms"),
        ("HEALTHCHECK --unknown=1 CMD x", "unknown option"),
    ],
)
def test_what_is_refused(line, reason):
    with pytest.raises(InvalidInputError, match=reason):
        apply_changes({"config": {}}, [line])
    word, _, rest = line.partition(" ")
    with pytest.raises(InvalidInputError, match=reason):
        edit_section({}, word, rest, variables={})


def test_what_there_was_is_left_alone():
    before = repr(BASE)
    for text, _ in CHANGES:
        apply_changes({"config": BASE}, [text])
        word, _, rest = text.partition("\n")[0].partition(" ")
        edit_section(BASE, word, rest, variables={"A": "1", "B": "2"})
    assert repr(BASE) == before
