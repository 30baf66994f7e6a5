"""Step 1: the same handler as an agent. It is called only for a message whose sender is proved and allowed, and recorded."""

from pydantic import BaseModel
from sealbus import Agent, Context, Resource, ResourceNotFound

agent = Agent("stock")
STOCK: dict[str, int] = {"42": 10}
OWNERS = {"42": "alice"}


class Update(BaseModel):
    """The stock of an item."""

    item_id: str
    quantity: int


async def item(body: Update) -> Resource:
    """Return whose an item is."""
    if body.item_id not in STOCK:
        raise ResourceNotFound(f"no item {body.item_id}")
    return Resource("item", body.item_id, owner=OWNERS[body.item_id])


@agent.task("update", resource=item, facts=["quantity"])
async def update(body: Update, ctx: Context) -> int:
    """Set the stock of an item for a user."""
    STOCK[body.item_id] = body.quantity
    return body.quantity


@agent.task("update_unattended", resource=item, facts=["quantity"])
async def update_unattended(body: Update, ctx: Context) -> int:
    """Set the stock of an item for nobody: what the old senders may do, for as long as there are any."""
    return await update(body, ctx)
