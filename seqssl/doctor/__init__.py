"""Is a run healthy? The same rules watch live (`Monitor`) and judge afterwards (`examine`).

docs/health.md explains every rule and its bar.
"""

from seqssl.doctor.examine import Report, examine
from seqssl.doctor.monitor import Finding, Monitor, together

__all__ = ["Finding", "Monitor", "Report", "examine", "together"]
