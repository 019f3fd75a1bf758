"""Imported first where programs are forked from: importing libraries leaves no garbage."""

import gc

gc.disable()
