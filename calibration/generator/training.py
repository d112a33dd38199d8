"""Groups of training conversations: several branches behind one block of functions, with fresh values each time."""

import json
import random
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from generator.blocks import can, converse, distractors
from generator.conversations import Conversation, Message, clarify, exchange, no_function_fits, tool
from generator.fresh import FreshPools, renew_enums, renew_literals
from generator.requests import ask
from generator.seeds import Function, Split, is_required, slots

# Shares of the branches behind a block. A small model learns to call first; to ask back and to decline take more
# examples, which the second mix has; the others keep both.
MIXES = {
    "calls": {
        "call": 0.48,
        "parallel": 0.07,
        "multi_turn": 0.08,
        "clarify": 0.12,
        "no_function_fits": 0.15,
        "chat": 0.10,
    },
    "abstain": {
        "call": 0.28,
        "parallel": 0.04,
        "multi_turn": 0.05,
        "clarify": 0.10,
        "contrast": 0.22,
        "no_function_fits": 0.25,
        "chat": 0.06,
    },
    "balanced": {
        "call": 0.40,
        "parallel": 0.05,
        "multi_turn": 0.05,
        "clarify": 0.09,
        "contrast": 0.13,
        "no_function_fits": 0.21,
        "chat": 0.07,
    },
    "finish": {
        "call": 0.58,
        "parallel": 0.06,
        "multi_turn": 0.05,
        "clarify": 0.05,
        "contrast": 0.07,
        "no_function_fits": 0.15,
        "chat": 0.04,
    },
    "last": {
        "call": 0.45,
        "option": 0.08,
        "parallel": 0.06,
        "multi_turn": 0.05,
        "clarify": 0.06,
        "contrast": 0.12,
        "no_function_fits": 0.14,
        "chat": 0.04,
    },
    "ask": {
        "call": 0.40,
        "option": 0.05,
        "parallel": 0.05,
        "multi_turn": 0.04,
        "clarify": 0.12,
        "contrast": 0.19,
        "no_function_fits": 0.10,
        "chat": 0.05,
    },
    "doubt": {
        "call": 0.32,
        "option": 0.05,
        "parallel": 0.04,
        "multi_turn": 0.03,
        "clarify": 0.15,
        "contrast": 0.21,
        "no_function_fits": 0.16,
        "chat": 0.04,
    },
}
_CHAT_GROUPS = {"finish": 0.03, "last": 0.04, "ask": 0.04, "doubt": 0.04}  # of groups without functions, else 0.08
# of groups whose first function takes an object
_NESTED_SHARE = {"calls": 0.0, "abstain": 0.4, "balanced": 0.2, "finish": 0.1, "last": 0.2, "ask": 0.1, "doubt": 0.1}
_PREPOSITIONS = "in|on|at|for|to|from|of|with|by|until|as|under|into|over|called"
_UNITS = "minutes?|min|hours?|days?|nights?|weeks?|months?|years?|people|guests|seats|percent|euros?|dollars?|degrees"
_NEW_ENUMS = 0.3  # of the functions shown
_QUESTIONS = (
    "What is the {words}?",
    "Which {words} do you mean?",
    "Could you tell me the {words}?",
    "I still need the {words}. What is it?",
    "What {words} should I use?",
    "Please give me the {words} first.",
)


@dataclass(frozen=True)
class Group:
    """Conversations that share their tools (none for chat)."""

    tools: list[dict[str, Any]]
    branches: list[tuple[str, list[Message]]]


def training_group(
    split: Split,
    chat: list[dict[str, Any]],
    rng: random.Random,
    branches: int = 8,
    mix: str = "calls",
    words: Sequence[str] | None = None,
) -> Group:
    """One group; every twelfth or so is chat without functions.

    With `words` most values are renewed, with words of those and with invented ones, and so are enumerations.
    """
    if chat and rng.random() < _CHAT_GROUPS.get(mix, 0.08):
        rows = rng.sample(chat, min(3, len(chat)))
        return Group([], [("plain_chat", row["messages"]) for row in rows if row["messages"][0]["role"] != "system"])
    first = rng.choice(split.functions)
    if _NESTED_SHARE[mix] and rng.random() < _NESTED_SHARE[mix]:
        first = rng.choice([function for function in split.functions if can(function, "nested")])
    size = rng.choices([2, 3, 4, 5, 6], [4, 5, 4, 2, 1])[0]
    shown = distractors([first], size, split, rng, same_domain=rng.random() < 0.45)
    if words is not None:
        split = replace(split, pools=FreshPools(split.pools, words))
        shown = [renew_enums(function, words, rng) if rng.random() < _NEW_ENUMS else function for function in shown]
    made: list[tuple[str, list[Message]]] = []
    while len(made) < branches:
        category = rng.choices(list(MIXES[mix]), list(MIXES[mix].values()))[0]
        if category in {"contrast", "option"}:
            required = category == "contrast"
            pair = _contrast(rng.choice(shown), split, rng, required=required)
            made += [(category, conversation.messages) for conversation in pair]
            continue
        conversation = _branch(category, shown, split, rng, words)
        if conversation is not None:
            made.append((category, conversation.messages))
    tools = [tool(function) for function in shown]
    return _vary(Group(tools, made), rng)


def _branch(
    category: str, shown: list[Function], split: Split, rng: random.Random, words: Sequence[str] | None
) -> Conversation | None:
    if category == "chat":
        return exchange(rng.choice(split.no_call))
    if category == "no_function_fits":
        domains = {function.domain for function in shown}
        absent = [function for function in split.functions if function.domain not in domains]
        return no_function_fits(rng.choice(absent), split, rng)
    able = [function for function in shown if can(function, category)]
    able += [function for function in able if category == "call" and can(function, "nested")]
    if not able:
        return None
    function = rng.choice(able)
    if category == "clarify":
        return _asked(function, words, rng)
    end = "call" if rng.random() < 0.6 else "prose"
    return converse(category, function, shown, split, rng, end=end)


def _asked(function: Function, words: Sequence[str] | None, rng: random.Random) -> Conversation | None:
    """A written request that lacks an argument, most times with other values in it."""
    if words is None or not function.missing:
        return clarify(function, rng)
    case = rng.choice(function.missing)
    said, reply = renew_literals([case.ask, case.reply], words, rng)
    conversation = Conversation(function.domain)
    conversation.user(said, case.ask)
    conversation.prose(reply)
    return conversation


def _contrast(function: Function, split: Split, rng: random.Random, *, required: bool) -> list[Conversation]:
    """The same request with and without one argument, fresh values in each.

    Without a required one it is answered by a question, and most times the call with it comes too; without an optional
    one it is a call that leaves it out.
    What a preposition leads to can be left out of a request, and it still reads: "Book {room} (for {date})".
    """
    lacking = []
    for template in function.phrasings:
        for dotted, _ in slots(template):
            if is_required(function.parameters, dotted) != required:
                continue
            leads = rf",? (?:{_PREPOSITIONS}) (?:the |a |an |my |our )?"
            ends = rf"(?: (?:{_UNITS}))?(?=$|[.,?!;]| (?:{_PREPOSITIONS}) )"
            phrase = rf"{leads}[\"“]?\{{{re.escape(dotted)}\}}[\"”]?{ends}"
            if _type(function.parameters, dotted) in {"integer", "number"}:  # "Order {count} cards"
                phrase = rf"{phrase}|(?<= )\{{{re.escape(dotted)}\}} (?=[a-z])"
            shorter, count = re.subn(phrase, "", template)
            if count == 1 and dotted not in {name for name, _ in slots(shorter)} and len(shorter.split()) > 2:
                lacking.append((template, shorter, dotted))
    if not lacking:
        return []
    template, shorter, dotted = rng.choice(lacking)
    if not required:
        return [_call(function, wording, split, rng) for wording in (template, shorter)]
    words = re.sub(r"(?<=[a-z])([A-Z])", r" \1", dotted.rpartition(".")[2]).replace("_", " ").lower()
    question = Conversation(function.domain)
    question.user(ask(function, shorter, split.pools, rng).text, shorter)
    question.prose(rng.choice(_QUESTIONS).replace("{words}", words))
    if rng.random() < 0.4:
        return [question]
    return [question, _call(function, template, split, rng)]


def _type(parameters: dict[str, Any], dotted: str) -> str | None:
    head, _, rest = dotted.partition(".")
    parameter = parameters.get(head, {})
    return _type(parameter.get("properties", {}), rest) if rest else parameter.get("type")


def _call(function: Function, template: str, split: Split, rng: random.Random) -> Conversation:
    whole = ask(function, template, split.pools, rng)
    call = Conversation(function.domain)
    call.user(whole.text, template)
    call.call(whole.calls)
    return call


def _vary(group: Group, rng: random.Random) -> Group:
    """Show the same functions in other clothes, so that names are read from the block and not remembered."""
    names: dict[str, str] = {}
    tools = []
    keys: dict[str, dict[str, str]] = {}
    style = rng.random()
    bare = rng.random() < 0.15
    for row in group.tools:
        function = row["function"]
        old = function["name"]
        names[old] = _rename(old, style)
        properties = function["parameters"]["properties"]
        order = list(properties)
        if rng.random() < 0.3:
            rng.shuffle(order)
        keys[old] = {key: _rename(key, style) for key in order}  # a call's arguments come in the order shown
        required = [keys[old][key] for key in order if key in function["parameters"]["required"]]
        shown = {keys[old][key]: _bare(properties[key]) if bare else properties[key] for key in order}
        parameters = {"type": "object", "properties": shown, "required": required}
        described = {"name": names[old], "description": function["description"], "parameters": parameters}
        tools.append({"type": "function", "function": described})
    branches = [
        (category, [_renamed(message, names, keys) for message in messages]) for category, messages in group.branches
    ]
    return Group(tools, branches)


def _rename(name: str, style: float) -> str:
    if style < 0.25:
        head, *tail = name.split("_")
        return head + "".join(word[:1].upper() + word[1:] for word in tail)
    if style < 0.5:
        return re.sub(r"(?<=[a-z0-9])([A-Z])", r"_\1", name).lower()
    return name


def _bare(schema: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in schema.items() if key != "description"}


def _renamed(message: Message, names: dict[str, str], keys: dict[str, dict[str, str]]) -> Message:
    if message["role"] == "tool":
        return {**message, "name": names[message["name"]]}
    if "tool_calls" not in message:
        return message
    calls = []
    for call in message["tool_calls"]:
        name = call["function"]["name"]
        arguments = json.loads(call["function"]["arguments"])
        order = list(keys[name])
        renamed = {keys[name][key]: arguments[key] for key in order if key in arguments}
        calls.append({**call, "function": {"name": names[name], "arguments": json.dumps(renamed, ensure_ascii=False)}})
    return {**message, "tool_calls": calls}
