"""Several faults on one answer: each edits what the one before it sent."""

import json
from itertools import permutations

import pytest
from support.stream_shapes import END, STOP, A, B, said

from fault_agent.acts import Send
from fault_agent.faults import parse
from fault_agent.leases import Leases
from fault_agent.messages import AnswerHead, RequestHead
from fault_agent.player import Player

C = said({"content": "c"})
STREAM = [said({"role": "assistant", "content": ""}), A, B, C, STOP, END]
WHOLE = [
    json.dumps({"model": "m", "choices": [{"message": {"content": "one two"}, "finish_reason": "stop"}]}).encode(),
]
EDITS = {
    "truncate": {"after_tokens": 1, "how": "mid_event"},
    "inband_error": {"after_tokens": 2},
    "malformed": {"after_tokens": 1},
    "duplicate": {"after_tokens": 0},
    "reorder": {"after_tokens": 1},
    "wrong_model": {"model": "other"},
    "empty_answer": {},
}


class Stage:
    """The connection of a client, which only keeps what it gets."""

    def __init__(self):
        self.body, self.ends = b"", 0

    def send(self, data):
        self.body += data

    def player_full(self, full):
        pass

    def played(self, *, closes):
        self.ends += 1

    def cut(self):
        raise AssertionError("no fault here cuts a connection")


def editor(kind, media):
    request = RequestHead(method="POST", path="/", version="1.1", headers=())
    head = AnswerHead(status=200, headers=(("content-type", media),), request=request)
    return parse({"kind": kind, "lease_s": 30, **EDITS[kind]}).fault.editor(head, lambda: None)


def lease(kind):
    return Leases().start(parse({"kind": kind, "lease_s": 30, **EDITS[kind]}).fault, seed=0, lease_s=30)


def edited(kind, pieces, media):
    """The pieces that one fault makes of others."""
    one = editor(kind, media)
    if one is None:
        return pieces
    acts = [act for piece in pieces for act in one.feed(piece)] + one.end()
    return [act.data for act in acts if isinstance(act, Send)]


@pytest.mark.parametrize(("media", "pieces"), [("text/event-stream", STREAM), ("application/json", WHOLE)])
@pytest.mark.parametrize(("first", "second"), list(permutations(EDITS, 2)))
def test_two_faults_edit_one_after_the_other(first, second, media, pieces):
    stage = Stage()
    editors = [(made, lease(kind)) for kind in (first, second) if (made := editor(kind, media)) is not None]
    player = Player(stage, editors, chunked=False, keep_alive=b"")
    for piece in pieces:
        player.feed(piece)
    player.end()

    assert stage.body == b"".join(edited(second, edited(first, pieces, media), media))
    assert stage.ends == 1


@pytest.mark.parametrize("place", range(len(STREAM) + 1))
@pytest.mark.parametrize("kind", EDITS)
def test_a_fault_that_has_ended_edits_no_further(kind, place):
    """It ends in the middle of an event and releases what it held."""
    stage, leases = Stage(), Leases()
    one = editor(kind, "text/event-stream")
    held = leases.start(parse({"kind": kind, "lease_s": 30, **EDITS[kind]}).fault, seed=0, lease_s=30)
    player = Player(stage, [(one, held)], chunked=False, keep_alive=b"")
    before = b"".join(STREAM[:place]) + b"".join(STREAM[place:])[:5]
    acts = [act.data for act in editor(kind, "text/event-stream").feed(before) if isinstance(act, Send)]
    player.feed(before)
    is_over = stage.ends == 1
    leases.end(held, "request")
    sent = len(stage.body)

    for byte in b"".join(STREAM)[len(before) :]:
        player.feed(bytes([byte]))
    player.end()

    assert stage.body[:sent] == b"".join(acts)
    if is_over:
        assert len(stage.body) == sent
    elif stage.body[:sent] == before[:sent]:
        assert stage.body == b"".join(STREAM)
    else:
        assert stage.body[sent:].endswith(b"".join(STREAM)[len(before) :])


@pytest.mark.parametrize("kind", ["truncate", "empty_answer", "wrong_model"])
def test_a_fault_that_has_ended_leaves_a_json_body_alone(kind):
    stage, leases = Stage(), Leases()
    held = leases.start(parse({"kind": kind, "lease_s": 30, **EDITS[kind]}).fault, seed=0, lease_s=30)
    player = Player(stage, [(editor(kind, "application/json"), held)], chunked=False, keep_alive=b"")
    player.feed(WHOLE[0][:20])
    leases.end(held, "request")
    player.feed(WHOLE[0][20:])
    player.end()

    assert stage.body == WHOLE[0]
