"""Users' aliases: a move is a compare-and-set; of those who saw the same state, one wins."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import text
from sqlalchemy.orm import Session

from app.store.aliases import Aliases, Expected, is_alias, tag_of
from app.store.errors import AliasMoved, AliasNotFound, AliasReserved, BadCursor, OptimizerNotFound
from app.store.records import records
from app.store.references import is_reference, is_version
from app.store.registry import Registry
from app.store.tables import DEFAULT_WORKSPACE, OptimizerRow
from tests.app.store.bench import Bench, training

NEW = Expected(absent=True)
ANY = Expected(present=True)


def seen(*tags: str) -> Expected:
    return Expected(present=True, tags=frozenset(tags))


def made(bench: Bench, count: int = 1, family: str = "quadratic") -> list[OptimizerRow]:
    found = [bench.finish(bench.running(training(family))).optimizer for _ in range(count)]
    return [optimizer for optimizer in found if optimizer is not None]


def move(bench: Bench, optimizer: OptimizerRow, expected: Expected, alias: str = "prod") -> str:
    """The tag after it."""
    return str(
        bench.write(lambda session: tag_of(Aliases(session).move(optimizer.family, alias, optimizer, expected)[0]))
    )


def delete(bench: Bench, expected: Expected, alias: str = "prod") -> None:
    bench.write(lambda session: Aliases(session).delete("quadratic", alias, expected))


def named(bench: Bench, reference: str = "quadratic@prod") -> str:
    return str(bench.read(lambda session: Registry(session).resolve(reference).id))


def at_once(*actions: Callable[[], object]) -> list[object]:
    """What each gave or raised; all begin together."""
    gate = threading.Barrier(len(actions))

    def run(action: Callable[[], object]) -> object:
        gate.wait(10)
        try:
            return action()
        except (AliasMoved, AliasNotFound) as error:
            return error

    with ThreadPoolExecutor(len(actions)) as threads:
        return list(threads.map(run, actions))


def test_an_alias_is_made_moved_and_deleted(bench: Bench) -> None:
    first, second = made(bench, 2)
    tag = move(bench, first, NEW)
    assert named(bench) == first.id
    moved = move(bench, second, seen(tag))
    assert named(bench) == second.id
    assert moved != tag
    with pytest.raises(AliasMoved, match=second.id) as caught:
        move(bench, first, seen(tag))
    assert (caught.value.optimizer, caught.value.tag) == (second.id, moved)
    with pytest.raises(AliasMoved):
        delete(bench, seen(tag))
    delete(bench, seen("other", moved))
    with pytest.raises(OptimizerNotFound):
        named(bench)
    for again in (seen(moved), ANY):
        with pytest.raises(AliasNotFound):
            delete(bench, again)
        with pytest.raises(AliasMoved, match="does not exist"):
            move(bench, first, again)


def test_no_state_of_an_alias_comes_twice(bench: Bench) -> None:
    """Else who saw it before it was deleted and made anew would move what is not the same."""
    first, second = made(bench, 2)
    tags = [move(bench, first, NEW), move(bench, second, ANY), move(bench, first, ANY), move(bench, first, ANY)]
    delete(bench, ANY)
    tags.append(move(bench, second, NEW))
    assert len(set(tags)) == len(tags)


def test_what_is_there_is_not_made_and_what_is_not_is_not_moved(bench: Bench) -> None:
    [optimizer] = made(bench)
    with pytest.raises(AliasMoved):
        move(bench, optimizer, ANY)
    tag = move(bench, optimizer, NEW)
    for expected in (NEW, Expected(absent=True, present=True), seen(), seen("x")):
        with pytest.raises(AliasMoved) as caught:
            move(bench, optimizer, expected)
        assert caught.value.tag == tag


def test_of_movers_at_once_one_wins(bench: Bench) -> None:
    optimizers = made(bench, 6)
    tag = move(bench, optimizers[0], NEW)
    for _ in range(4):
        moves = [lambda row=row, tag=tag: move(bench, row, seen(tag)) for row in optimizers]  # type: ignore[misc]
        results = at_once(*moves)
        winners = [index for index, result in enumerate(results) if isinstance(result, str)]
        assert len(winners) == 1, results
        tag = str(results[winners[0]])
        assert named(bench) == optimizers[winners[0]].id
        losers = [result for result in results if isinstance(result, AliasMoved)]
        assert {(loser.optimizer, loser.tag) for loser in losers} == {(optimizers[winners[0]].id, tag)}


def test_of_makers_at_once_one_wins(bench: Bench) -> None:
    optimizers = made(bench, 6)
    for name in ("a", "b", "c"):
        makes = [lambda row=row, name=name: move(bench, row, NEW, name) for row in optimizers]  # type: ignore[misc]
        results = at_once(*makes)
        winners = [index for index, result in enumerate(results) if isinstance(result, str)]
        assert len(winners) == 1, results
        assert named(bench, f"quadratic@{name}") == optimizers[winners[0]].id


def test_a_mover_and_a_deleter_at_once(bench: Bench) -> None:
    first, second = made(bench, 2)
    for _ in range(4):
        tag = move(bench, first, NEW)
        moved, deleted = at_once(
            lambda tag=tag: move(bench, second, seen(tag)),  # type: ignore[misc]
            lambda tag=tag: delete(bench, seen(tag)),  # type: ignore[misc]
        )
        assert isinstance(moved, AliasMoved) != isinstance(deleted, AliasMoved), (moved, deleted)
        if deleted is not None:
            delete(bench, ANY)


def test_who_comes_second_waits_and_then_sees_the_move(postgres_bench: Bench) -> None:
    """The lock at work: the first has moved the alias and has not committed yet."""
    bench = postgres_bench
    first, second = made(bench, 2)
    tag = move(bench, first, NEW)
    results: list[object] = []
    late = threading.Thread(target=lambda: results.extend(at_once(lambda: move(bench, first, seen(tag)))))
    with bench.database.write() as session:
        Aliases(session).move("quadratic", "prod", second, seen(tag))
        late.start()
        late.join(0.3)
        assert late.is_alive(), "it waits for the open transaction"
    late.join(10)
    [result] = results
    assert isinstance(result, AliasMoved)
    assert named(bench) == second.id


def test_reserved_names_are_nobodys(bench: Bench) -> None:
    [optimizer] = made(bench)
    for alias, meaning in (("latest", "newest version"), ("best", "lowest validation score")):
        with pytest.raises(AliasReserved, match=meaning):
            move(bench, optimizer, NEW, alias)
        with pytest.raises(AliasReserved, match="moves by itself"):
            delete(bench, ANY, alias)
        with pytest.raises(AliasNotFound, match=f"GET /optimizers/quadratic@{alias}"):
            bench.read(lambda session: Aliases(session).get("quadratic", alias))  # noqa: B023


def test_aliases_of_a_family_by_name_and_by_optimizer(bench: Bench) -> None:
    first, second = made(bench, 2)
    [other] = made(bench, family="digits-mlp")
    for optimizer, alias in ((first, "prod"), (second, "canary"), (first, "v1.0"), (other, "prod")):
        move(bench, optimizer, NEW, alias)
    page = bench.read(lambda session: Aliases(session).page("quadratic", 2))
    assert [row.alias for row in page.rows] == ["canary", "prod"]
    with pytest.raises(BadCursor):
        bench.read(lambda session: Aliases(session).page("digits-mlp", 2, page.next))
    page = bench.read(lambda session: Aliases(session).page("quadratic", 2, page.next))
    assert ([row.alias for row in page.rows], page.has_more) == (["v1.0"], False)
    found = bench.read(lambda session: records(session, DEFAULT_WORKSPACE, [second, first, other]))
    assert [record.aliases for record in found] == [
        ["latest", "canary"], ["best", "prod", "v1.0"], ["best", "latest", "prod"],
    ]  # fmt: skip
    assert named(bench, "digits-mlp@prod") == other.id
    with pytest.raises(OptimizerNotFound, match=r"quadratic@canary, quadratic@prod, quadratic@v1\.0"):
        named(bench, "quadratic@prd")


def test_a_workspace_has_aliases_of_its_own(bench: Bench) -> None:
    [optimizer] = made(bench)
    move(bench, optimizer, NEW)

    def theirs(session: Session) -> list[object]:
        return [
            *Aliases(session, "elsewhere").page("quadratic").rows,
            *Aliases(session, "elsewhere").names_of([optimizer.id]),
            *Registry(session, "elsewhere").page(alias="prod").rows,
        ]

    assert bench.read(theirs) == []
    with pytest.raises(AliasNotFound):
        bench.read(lambda session: Aliases(session, "elsewhere").get("quadratic", "prod"))
    with pytest.raises(OptimizerNotFound):
        bench.read(lambda session: Registry(session, "elsewhere").resolve("quadratic@prod"))
    # nor does a row of another workspace that names our optimizer
    bench.write(
        lambda session: session.execute(text("INSERT INTO workspaces SELECT 'elsewhere', created_at FROM jobs"))
    )
    bench.write(lambda session: session.execute(text("UPDATE aliases SET workspace = 'elsewhere'")))
    with pytest.raises(OptimizerNotFound):
        named(bench)


def test_optimizers_are_found_by_alias(bench: Bench) -> None:
    first, second, third = made(bench, 3)
    [other] = made(bench, family="digits-mlp")
    bench.write(
        lambda session: session.execute(text("UPDATE optimizers SET validation_score = NULL WHERE version = 1"))
    )
    move(bench, second, NEW)
    move(bench, other, NEW)

    def found(**filters: str) -> list[str]:
        return [row.id for row in bench.read(lambda session: Registry(session).page(**filters)).rows]

    assert found(alias="prod") == [other.id, second.id]
    assert found(alias="prod", family="quadratic") == [second.id]
    assert found(alias="latest") == [other.id, third.id]
    assert found(alias="best") == [second.id]  # 2 and 3 score alike, 1 and that of the other family do not
    assert found(alias="best", family="digits-mlp") == []
    assert found(alias="canary") == []
    assert first.id in found()


def test_optimizers_are_found_by_the_labels_of_their_job(bench: Bench) -> None:
    def labelled(**labels: str) -> str:
        optimizer = bench.finish(bench.claim(bench.create(labels=labels))).optimizer
        assert optimizer is not None
        return optimizer.id

    old, new, bare = labelled(team="vision", run="1"), labelled(team="vision", run="2=b"), labelled()

    def found(*tags: tuple[str, str | None]) -> list[str]:
        return [row.id for row in bench.read(lambda session: Registry(session).page(tags=tags)).rows]

    assert found(("team", "vision")) == [new, old]
    assert found(("team", None)) == [new, old]
    assert found(("team", "vision"), ("run", "2=b")) == [new]
    assert found(("run", "1"), ("run", "2=b")) == found(("team", "audio")) == found(("te", None)) == []
    assert found(("team", "")) == []
    assert found() == [bare, new, old]
    rows = bench.read(lambda session: Registry(session).page().rows)
    tags = [record.tags for record in bench.read(lambda session: records(session, DEFAULT_WORKSPACE, rows))]
    assert tags == [{}, {"team": "vision", "run": "2=b"}, {"team": "vision", "run": "1"}]
    page = bench.read(lambda session: Registry(session).page(tags=[("team", None)], limit=1))
    with pytest.raises(BadCursor):
        bench.read(lambda session: Registry(session).page(tags=[("team", "vision")], limit=1, after=page.next))


def test_names_of_aliases() -> None:
    for name in ("prod", "a", "v1.0", "x" * 64, "a_b-c", "latest"):
        assert is_alias(name), name
        assert not is_version(name), name
        assert is_reference(f"quadratic@{name}"), name
    for name in ("", "1", "Prod", "x" * 65, "a b", "ä", "-a", "prod\n", "a/b", "a@b"):
        assert not is_alias(name), name
