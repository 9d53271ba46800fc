"""A plugin whose import never ends, as that of a module that asks a service which is not there."""

import time

time.sleep(600)
