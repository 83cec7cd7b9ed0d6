"""Computes the reference tables of this folder with atspm, independently of our functions.

    python3 -m venv venv && venv/bin/pip install atspm==2.6.1 duckdb==1.1.3
    venv/bin/python compute.py
"""

import pathlib

import duckdb
from atspm import SignalDataProcessor

HERE = pathlib.Path(__file__).parent
DATA = HERE.parent / "data"
TABLES = {
    "actuations": "TimeStamp, DeviceId, Detector",
    "arrival_on_green": "TimeStamp, DeviceId, Phase",
    "terminations": "TimeStamp, DeviceId, Phase, PerformanceMeasure",
}

processor = SignalDataProcessor(
    raw_data=duckdb.read_csv(str(DATA / "controller_events.csv.gz")),
    detector_config=duckdb.read_csv(str(DATA / "controller_config.csv.gz")),
    bin_size=15,
    verbose=0,
    aggregations=[
        {"name": "actuations", "params": {}},
        {"name": "arrival_on_green", "params": {"latency_offset_seconds": 0}},
        {"name": "terminations", "params": {}},
    ],
)
processor.load()
processor.aggregate()
for table, order in TABLES.items():
    processor.conn.execute(
        f"COPY (SELECT * FROM {table} ORDER BY {order}) TO '{HERE / table}.csv' (HEADER)"
    )
processor.close()
