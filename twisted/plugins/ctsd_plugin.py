"""C{twistd ctsd}."""

from twisted.application.service import ServiceMaker

ctsd = ServiceMaker(
    "ctsd",
    "ctsd.tap",
    "A custom threat service for IBM Resilient (QRadar SOAR).",
    "ctsd",
)
