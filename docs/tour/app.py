from pydantic import BaseModel

from sealbus import Agent, Context, Resource, ResourceNotFound

agent = Agent("inventory")
ITEMS = {"42": {"owner": "alice", "customer": "acme", "region": "always"}}
STOCK = {"42": 10}


class Update(BaseModel):
    item_id: str
    quantity: int


async def item(body: Update) -> Resource:  # from our own data, never from the message
    if body.item_id not in ITEMS:
        raise ResourceNotFound(f"no item {body.item_id}")
    return Resource("item", body.item_id, **ITEMS[body.item_id])


@agent.task("update", resource=item, facts=["quantity"])
async def update(body: Update, ctx: Context) -> None:
    STOCK[body.item_id] = body.quantity
    who = ctx.user.sub if ctx.user else "nobody"
    print(f"{who} set {body.item_id} to {body.quantity}")


@agent.call("read", resource=item)
async def read(body: Update, ctx: Context) -> Update:
    return Update(item_id=body.item_id, quantity=STOCK[body.item_id])
