# twistd -n -y ctsd.tac: the daemon of $CTSD_CONFIG, ./ctsd.toml or the built-in defaults.
from twisted.application.service import Application

from ctsd.tap import makeService

application = Application("ctsd")
makeService({}).setServiceParent(application)
