"""The engine's workspace, in which small methods train in a second."""

from __future__ import annotations

from tests.engine.conftest import workspace as workspace
