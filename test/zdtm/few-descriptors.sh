#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# A tree with more descriptors than one process may have open, so that no process can have them all to hand them out.
exec prlimit --nofile=700:700 "$(dirname "$0")/run" -m dump -m migrate fd-crowd
