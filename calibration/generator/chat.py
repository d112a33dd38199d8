"""Chat conversations as records."""

from typing import Any

from generator.blocks import Record
from generator.seeds import phrasing_hash


def chat_records(conversations: list[dict[str, Any]]) -> list[Record]:
    """Each hand-written conversation as a record without tools, in the seeds' order."""
    return [
        {
            "id": row["id"],
            "category": row["category"],
            "phrasings": [phrasing_hash(each["content"]) for each in row["messages"] if each["role"] == "user"],
            "messages": [{"role": each["role"], "content": each["content"].strip()} for each in row["messages"]],
        }
        for row in conversations
    ]
