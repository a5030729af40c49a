"""A model computes for one thread at a time: the others wait until a token, a prompt or a question is computed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from functools import wraps
from typing import Concatenate, ParamSpec, Protocol, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


class Lockable(Protocol):
    """A model. lock: of the thread that computes with it, which may take it again."""

    @property
    def lock(self) -> AbstractContextManager[object]: ...


class OfModel(Protocol):
    """What computes with a model, as a session does."""

    @property
    def model(self) -> Lockable: ...


M = TypeVar("M", bound=Lockable)
S = TypeVar("S", bound=OfModel)


def exclusive(function: Callable[Concatenate[M, P], T]) -> Callable[Concatenate[M, P], T]:
    """A function of a model that computes as a whole while no other thread computes with that model."""

    @wraps(function)
    def alone(model: M, /, *arguments: P.args, **options: P.kwargs) -> T:
        with model.lock:
            return function(model, *arguments, **options)

    return alone


def each_exclusive(function: Callable[Concatenate[S, P], Iterator[T]]) -> Callable[Concatenate[S, P], Iterator[T]]:
    """A generator of a session that computes each item while no other thread computes with its model.

    Between two items the model is free, so that an answer that nobody reads on holds up no other.
    """

    @wraps(function)
    def alone(session: S, /, *arguments: P.args, **options: P.kwargs) -> Iterator[T]:
        items = function(session, *arguments, **options)
        while True:
            with session.model.lock:
                try:
                    item = next(items)
                except StopIteration:
                    return
            yield item

    return alone
