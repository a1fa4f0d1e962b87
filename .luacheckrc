-- SPDX-License-Identifier: MIT
std = "lua54"
max_line_length = 100
exclude_files = { "build" }
files["spec"] = { std = "+busted" }
files["**/*.d.lua"] = { ignore = { "212" } }
