"""Read item 42 as another agent that speaks A2A does: `python partner.py EDGE TOKEN`."""

import asyncio
import sys

import httpx
from a2a.client import ClientConfig, create_client
from a2a.types import Message, Part, Role, SendMessageRequest
from google.protobuf.json_format import MessageToDict, ParseDict
from google.protobuf.struct_pb2 import Value


async def main(edge: str, token: str) -> None:
    part = Part(data=ParseDict({"item_id": "42", "quantity": 0}, Value()))
    message = Message(message_id="m-1", role=Role.ROLE_USER, parts=[part])
    message.metadata.update({"skillId": "inventory.read"})
    async with httpx.AsyncClient(headers={"Authorization": f"Bearer {token}"}) as http:
        client = await create_client(f"{edge}/a2a/inventory", client_config=ClientConfig(httpx_client=http))
        async for answer in client.send_message(SendMessageRequest(message=message)):
            print(MessageToDict(answer.message.parts[0].data))


asyncio.run(main(*sys.argv[1:]))
