"""``POOL``: the private descriptor pool that holds our messages, so that other packages may define the same names.

``tritonclient`` and ``kserve`` both put files of the package ``inference`` on protobuf's default pool, where a second file
with the same symbols is refused.
"""

from google.protobuf.descriptor_pool import DescriptorPool

POOL = DescriptorPool()
