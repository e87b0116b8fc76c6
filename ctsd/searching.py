"""
The public face of ctsd for authors of searchers: everything a searcher needs, from one place.

See the README, "Write a searcher".
"""

from ctsd.answering import Found, answer_of
from ctsd.errors import NotConfigured, SearchFailed, SearchLater
from ctsd.feed_searchers import look_up
from ctsd.interfaces.feeds import IFeeds, IRecords, IThreats
from ctsd.internal import InternalArtifactSearch
from ctsd.model import Artifact, File, Hit, Property, Suppressed, Threat
from ctsd.properties import ip, lat_lng, number, string, uri
from ctsd.records import Indexed, Matches, Record
from ctsd.search_context import SearchContext
from ctsd.searcher import BaseArtifactSearch
from ctsd.searcher_setup import SearcherSetup

__all__ = [
    "Artifact",
    "BaseArtifactSearch",
    "File",
    "Found",
    "Hit",
    "IFeeds",
    "IRecords",
    "IThreats",
    "Indexed",
    "InternalArtifactSearch",
    "Matches",
    "NotConfigured",
    "Property",
    "Record",
    "SearchContext",
    "SearchFailed",
    "SearchLater",
    "SearcherSetup",
    "Suppressed",
    "Threat",
    "answer_of",
    "ip",
    "lat_lng",
    "look_up",
    "number",
    "string",
    "uri",
]
