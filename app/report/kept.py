"""Pictures that were drawn lately: one costs matplotlib up to a second, and equal facts give equal bytes."""

from __future__ import annotations

import hashlib
import json
import pickle
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping
from functools import wraps
from typing import Any, ParamSpec

MOST_BYTES = 16 * 2**20
"""Bytes that one process keeps: some hundred pictures."""

P = ParamSpec("P")

_pictures: OrderedDict[bytes, bytes] = OrderedDict()
_lock = threading.Lock()


def kept(draw: Callable[P, bytes]) -> Callable[P, bytes]:
    """Wrap a function that draws a picture: from equal arguments it draws once, while the picture is among the last
    ones asked for."""

    @wraps(draw)
    def found(*arguments: P.args, **named: P.kwargs) -> bytes:
        facts = json.dumps([draw.__module__, draw.__name__, arguments, named], default=_plain)
        key = hashlib.sha256(facts.encode()).digest()
        with _lock:
            if key in _pictures:
                _pictures.move_to_end(key)
                return _pictures[key]
        picture = draw(*arguments, **named)
        with _lock:
            _pictures[key] = picture
            while sum(map(len, _pictures.values())) > MOST_BYTES:
                _pictures.popitem(last=False)
        return picture

    return found


def _plain(value: Any) -> Any:
    """All that a value says which JSON has no form for: an array, a moment."""
    return dict(value) if isinstance(value, Mapping) else pickle.dumps(value).hex()
