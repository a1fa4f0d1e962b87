-- SPDX-License-Identifier: MIT
-- Runs busted in the interpreter that runs this file, whatever interpreter the
-- installed busted program asks for.
require "busted.runner"({ standalone = false })
