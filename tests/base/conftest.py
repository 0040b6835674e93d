from faulty_disk import faulty_os, working_os

__all__ = ["faulty_os", "working_os"]
