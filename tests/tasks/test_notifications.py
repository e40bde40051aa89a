"""Who is told that a person is needed, by the notification blocks of a real Prefect server."""

from http import HTTPStatus

import pytest
from prefect.blocks.notifications import CustomWebhookNotificationBlock, SlackWebhook
from prefect.blocks.system import Secret
from pydantic import SecretStr

from tasks.notifications import WAYS, notify
from tests.tasks.listening import Webhook, webhook

pytestmark = [
    pytest.mark.server,
    pytest.mark.anyio,
    pytest.mark.filterwarnings("ignore:'imghdr' is deprecated:DeprecationWarning"),  # Apprise imports it
]
TEXT = {"subject": "{{subject}}", "text": "{{body}}"}


async def a_webhook(name: str, url: str) -> str:
    """A block for a webhook, by the name that clusters have for it."""
    await CustomWebhookNotificationBlock(name=name, url=url, json_data=TEXT).save(name, overwrite=True)
    return f"custom-webhook/{name}"


async def a_chat(name: str, hook: Webhook) -> str:
    """A block by which Apprise sends, for a chat that is our webhook."""
    url = SecretStr(f"json://127.0.0.1:{hook.port}/")
    await SlackWebhook(url=url).save(name, overwrite=True)
    return f"slack-webhook/{name}"


async def test_each_block_is_sent_subject_and_text(prefect_server: str) -> None:
    """A webhook and a chat by Apprise get the same subject and text, once each."""
    with webhook() as first, webhook() as second:
        await notify([await a_webhook("told", first.url), await a_chat("told", second)], "Restart? alpha", "By whom?")
    assert first.heard == [{"subject": "Restart? alpha", "text": "By whom?"}]
    assert [(each["title"], each["message"]) for each in second.heard] == [("Restart? alpha", "By whom?")]


async def test_whoever_cannot_be_told_keeps_nobody_from_being_told(
    prefect_server: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Blocks that fail, are unknown or no notification are a line each without their address, and the next is told."""
    await Secret(value=SecretStr("s")).save("no-notification", overwrite=True)
    with webhook() as hook, webhook(HTTPStatus.FORBIDDEN) as refuses:
        names = [
            await a_webhook("closed", "http://127.0.0.1:9/s3cr3t"),
            await a_webhook("refuses", refuses.url),
            await a_chat("refuses", refuses),
            "custom-webhook/nobody",
            "no-type/at-all",
            "nothing",
            "secret/no-notification",
            await a_webhook("told", hook.url),
        ]
        await notify(names, "Restart? alpha", "By whom?")
    assert [each["subject"] for each in hook.heard] == ["Restart? alpha"]
    unknown = f"cannot be loaded (ValueError); it must be one {WAYS}"
    assert [record.getMessage() for record in caplog.records if record.name == "runbooks"] == [
        "notification 'custom-webhook/closed' was not delivered (ConnectError)",
        "notification 'custom-webhook/refuses' was not delivered (HTTPStatusError)",
        "notification 'slack-webhook/refuses' was not delivered (NotificationError)",
        f"notification 'custom-webhook/nobody' {unknown}",
        f"notification 'no-type/at-all' {unknown}",
        f"notification 'nothing' {unknown}",
        f"'secret/no-notification' is no notification block; it must be one {WAYS}",
    ]
