"""Cloud requests signed with the vendor's own signer, as an `httpx.Auth`."""

from collections.abc import Generator

import httpx
from huaweicloudsdkcore.auth.credentials import BasicCredentials
from huaweicloudsdkcore.sdk_request import SdkRequest
from huaweicloudsdkcore.signer.signer import Signer


class SignedWithKeys(httpx.Auth):
    """SDK-HMAC-SHA256 with an access key. Every header that is set before signing is signed.

    Source: huaweicloudsdkcore `signer.Signer`; "Calling APIs", AK/SK authentication.

    Args:
        security_token: for temporary keys, else empty.
        scope: `X-Project-Id` (project-level services) or `X-Domain-Id` (IAM), with its id.
    """

    requires_request_body = True

    def __init__(self, access_key: str, secret_key: str, *, security_token: str = "", scope: dict[str, str]) -> None:
        self._signer = Signer(BasicCredentials(access_key, secret_key))
        self._scope = {**scope, **({"X-Security-Token": security_token} if security_token else {})}

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        """Sign the request in place; it is sent once."""
        request.headers.update(self._scope)
        signed = ("host", "content-type", *(name.lower() for name in self._scope))
        sdk_request = SdkRequest(
            method=request.method,
            schema=request.url.scheme,
            host=request.headers["host"],
            resource_path=request.url.path,
            query_params=list(request.url.params.multi_items()),
            header_params={name: request.headers[name] for name in signed if name in request.headers},
            body=request.content or "",
        )
        request.headers.update(self._signer.sign(sdk_request).header_params)
        yield request


class SignedWithToken(httpx.Auth):
    """A token issued by IAM (valid 24 hours), sent as `X-Auth-Token`."""

    def __init__(self, token: str) -> None:
        self._token = token

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        """Add the token."""
        request.headers["X-Auth-Token"] = self._token
        yield request
