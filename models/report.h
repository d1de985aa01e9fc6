// What a training gave: metrics, summaries, curves.
#pragma once
#include <ebb/models/report/metrics.h>
#include <ebb/models/report/summary.h>
#include <ebb/models/report/svg.h>
