"""What an agency may do, as IAM lists it."""

from pydantic import AliasChoices, Field

from tasks.models import Frozen, Text


class Statement(Frozen):
    """What a policy of IAM allows or denies. `effect` is Allow or Deny."""

    effect: Text = Field("", validation_alias=AliasChoices("Effect", "effect"))
    actions: tuple[Text, ...] = Field((), validation_alias=AliasChoices("Action", "actions"))


class Policy(Frozen):
    """The content of a permission."""

    statements: tuple[Statement, ...] = Field((), validation_alias=AliasChoices("Statement", "statements"))


class Permission(Frozen):
    """A role or policy that an agency has. `shown` is its name in the console, empty where IAM does not give it.

    Source: IAM API "Querying Permissions of an Agency for a Global Service Project"; huaweicloudsdkiam v3, RoleResult.
    """

    name: Text = ""
    shown: Text = Field("", validation_alias=AliasChoices("display_name", "shown"))
    policy: Policy | None = None
