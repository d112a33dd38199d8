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
            "phrasings": [phrasing_hash(message["content"]) for message in row["messages"] if message["role"] == "user"],
            "messages": [{"role": message["role"], "content": message["content"].strip()} for message in row["messages"]],
        }
        for row in conversations
    ]
