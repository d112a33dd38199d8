"""The evaluation suites: blocks of functions with a few call items and a few no-call items each."""

import random
from collections import deque
from collections.abc import Sequence

from generator.blocks import Record, Supply, can, converse, distractors, record
from generator.conversations import Conversation, clarify, exchange, no_function_fits
from generator.seeds import Function, Split

ITEMS_PER_BLOCK = 4


def build_suites(
    split: Split, calls: dict[str, int], no_calls: dict[str, int], seed: int
) -> tuple[list[Record], list[Record]]:
    """The `calls` and `no-call` suites; items of one block show the same functions in the same order.

    `calls` and `no_calls` say how many items each category has.
    """
    rng = random.Random(seed)
    supply = Supply(split, rng)
    blocks = _same_domain_blocks(calls["one_of_several"], split, supply, rng)
    others = {category: count for category, count in calls.items() if category != "one_of_several"}
    blocks += _mixed_blocks(others, split, supply, rng)
    rng.shuffle(blocks)
    call_rows: list[Record] = []
    for number, (shown, items) in enumerate(blocks, 1):
        for category, conversation in items:
            name = f"call-{len(call_rows) + 1:04d}"
            call_rows.append(record(name, category, conversation, shown, block=f"b{number:03d}"))
    return call_rows, _no_call(no_calls, [shown for shown, _ in blocks], split, supply, rng)


Block = tuple[list[Function], list[tuple[str, Conversation]]]


def _same_domain_blocks(count: int, split: Split, supply: Supply, rng: random.Random) -> list[Block]:
    blocks: list[Block] = []
    seen: set[str] = set()
    while sum(len(items) for _, items in blocks) < count:
        function = supply.draw(lambda candidate: can(candidate, "one_of_several"))
        if function is None:
            raise SystemExit("error: no seed function for one_of_several")
        shown = distractors([function], rng.choice([3, 4, 5, 6]), split, rng, same_domain=True)
        items: list[tuple[str, Conversation]] = []
        subjects = [function, *(other for other in shown if other is not function and can(other, "one_of_several"))]
        for subject in (subjects * ITEMS_PER_BLOCK)[:ITEMS_PER_BLOCK]:
            conversation = _fresh("one_of_several", subject, shown, split, rng, seen)
            if conversation is not None and len(items) + sum(len(done) for _, done in blocks) < count:
                supply.uses[subject.name] += subject is not function
                items.append(("one_of_several", conversation))
        blocks.append((shown, items))
    return blocks


def _mixed_blocks(quotas: dict[str, int], split: Split, supply: Supply, rng: random.Random) -> list[Block]:
    wanted = [category for category, count in quotas.items() for _ in range(count)]
    rng.shuffle(wanted)
    queue = deque(wanted)
    blocks: list[Block] = []
    seen: set[str] = set()
    while queue:
        categories = [queue.popleft() for _ in range(min(ITEMS_PER_BLOCK, len(queue)))]
        subjects: list[Function] = []
        for category in categories:
            # A block's functions come from different domains; a later item may share an earlier one's function.
            domains = {function.domain for function in subjects}
            again = [function for function in subjects if can(function, category)]
            if again and rng.random() < 0.3:
                subjects.append(rng.choice(again))
                continue
            function = supply.draw(
                lambda candidate, kind=category, taken=domains: can(candidate, kind) and candidate.domain not in taken
            )
            if function is None:
                raise SystemExit(f"error: no seed function for {category}")
            subjects.append(function)
        distinct = list(dict.fromkeys(subjects))
        size = rng.randint(max(2, len(distinct)), max(2, min(6, len(distinct) + 2)))
        shown = distractors(distinct, size, split, rng, same_domain=False)
        items = []
        for category, subject in zip(categories, subjects, strict=True):
            conversation = _fresh(category, subject, shown, split, rng, seen)
            if conversation is None:
                queue.append(category)
            else:
                items.append((category, conversation))
        if items:
            blocks.append((shown, items))
    return blocks


def _fresh(
    category: str, subject: Function, shown: Sequence[Function], split: Split, rng: random.Random, seen: set[str]
) -> Conversation | None:
    """A conversation whose first request no other item of the suite has."""
    for _ in range(20):
        conversation = converse(category, subject, shown, split, rng)
        if conversation is not None and conversation.messages[0]["content"] not in seen:
            seen.add(conversation.messages[0]["content"])
            return conversation
    return None


def _no_call(
    quotas: dict[str, int], shown_blocks: list[list[Function]], split: Split, supply: Supply, rng: random.Random
) -> list[Record]:
    rows: list[Record] = []
    seen: set[str] = set()
    chats = list(split.no_call)
    rng.shuffle(chats)
    wanted = [category for category, count in quotas.items() for _ in range(count)]
    rng.shuffle(wanted)
    # Clarifying questions go where their function is shown; they are few, so they are placed first.
    wanted.sort(key=lambda category: category != "clarify")
    load = dict.fromkeys(range(len(shown_blocks)), 0)
    for category in wanted:
        for number in sorted(load, key=lambda block: (load[block], rng.random())):
            conversation = _abstention(category, shown_blocks[number], chats, split, supply, rng, seen)
            if conversation is not None:
                load[number] += 1
                seen.add(conversation.messages[0]["content"])
                rows.append(record("", category, conversation, shown_blocks[number], block=f"b{number + 1:03d}"))
                break
    rows.sort(key=lambda row: str(row["block"]))
    return [{**row, "id": f"no-call-{number:04d}"} for number, row in enumerate(rows, 1)]


def _abstention(
    category: str,
    shown: list[Function],
    chats: list,
    split: Split,
    supply: Supply,
    rng: random.Random,
    seen: set[str],
) -> Conversation | None:
    if category == "chat":
        return exchange(chats.pop()) if chats else None
    if category == "clarify":
        candidates = [function for function in shown if function.missing]
        conversation = clarify(rng.choice(candidates), rng) if candidates else None
        return conversation if conversation and conversation.messages[0]["content"] not in seen else None
    domains = {function.domain for function in shown}
    function = supply.draw(lambda candidate: candidate.domain not in domains)
    conversation = no_function_fits(function, split, rng) if function else None
    return conversation if conversation and conversation.messages[0]["content"] not in seen else None
