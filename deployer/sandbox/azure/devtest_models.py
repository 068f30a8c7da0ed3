"""The one resource of Microsoft.DevTestLab that a machine's daily shutdown is, in the SDK's manner.

Its SDK is not among the installed ones; property names are those of API version 2018-09-15. Annotations are types here
and not texts: the emulator reads them.
"""

from typing import Any, Optional

from azure.mgmt.compute._utils.model_base import Model, rest_field


class DayDetails(Model):  # type: ignore[misc]  # the SDK keeps the type to itself
    """`time`: HHMM."""

    time: Optional[str] = rest_field()  # noqa: UP045 (read by the SDK's base)


class HourDetails(Model):  # type: ignore[misc]
    """`minute` of each hour."""

    minute: Optional[int] = rest_field()  # noqa: UP045


class WeekDetails(Model):  # type: ignore[misc]
    """`time` on some days."""

    time: Optional[str] = rest_field()  # noqa: UP045
    weekdays: Optional[list[str]] = rest_field()  # noqa: UP045


class NotificationSettings(Model):  # type: ignore[misc]
    """Who is told before."""

    status: Optional[str] = rest_field()  # noqa: UP045
    time_in_minutes: Optional[int] = rest_field(name="timeInMinutes")  # noqa: UP045
    webhook_url: Optional[str] = rest_field(name="webhookUrl")  # noqa: UP045
    email_recipient: Optional[str] = rest_field(name="emailRecipient")  # noqa: UP045
    notification_locale: Optional[str] = rest_field(name="notificationLocale")  # noqa: UP045


class ScheduleProperties(Model):  # type: ignore[misc]
    """What happens when to which machine."""

    status: Optional[str] = rest_field()  # noqa: UP045
    task_type: Optional[str] = rest_field(name="taskType")  # noqa: UP045
    daily_recurrence: Optional[DayDetails] = rest_field(name="dailyRecurrence")  # noqa: UP045
    hourly_recurrence: Optional[HourDetails] = rest_field(name="hourlyRecurrence")  # noqa: UP045
    weekly_recurrence: Optional[WeekDetails] = rest_field(name="weeklyRecurrence")  # noqa: UP045
    time_zone_id: Optional[str] = rest_field(name="timeZoneId")  # noqa: UP045
    notification_settings: Optional[NotificationSettings] = rest_field(name="notificationSettings")  # noqa: UP045
    target_resource_id: Optional[str] = rest_field(name="targetResourceId")  # noqa: UP045
    created_date: Optional[str] = rest_field(name="createdDate", visibility=["read"])  # noqa: UP045
    provisioning_state: Optional[str] = rest_field(name="provisioningState", visibility=["read"])  # noqa: UP045
    unique_identifier: Optional[str] = rest_field(name="uniqueIdentifier", visibility=["read"])  # noqa: UP045


class GlobalSchedule(Model):  # type: ignore[misc]
    """The resource, by the name that Pulumi's package has for it."""

    __flattened_items = ["status"]
    id: Optional[str] = rest_field(visibility=["read"])  # noqa: UP045
    name: Optional[str] = rest_field(visibility=["read"])  # noqa: UP045
    type: Optional[str] = rest_field(visibility=["read"])  # noqa: UP045
    system_data: Optional[Any] = rest_field(name="systemData", visibility=["read"])  # noqa: UP045
    location: Optional[str] = rest_field()  # noqa: UP045
    tags: Optional[dict[str, str]] = rest_field()  # noqa: UP045
    properties: Optional[ScheduleProperties] = rest_field()  # noqa: UP045
