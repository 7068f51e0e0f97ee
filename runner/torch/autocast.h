#pragma once

#include <ATen/autocast_mode.h>
