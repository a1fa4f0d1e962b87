---@meta
-- SPDX-License-Identifier: MIT
-- fork_map.core, continued: what processes say to each other beside the results of calls.

---@class fork_map.core
local core = {}

---@class fork_map.core.Link: userdata

---Take over descriptors as one end of a channel; they may be the same.
---@param read_fd integer
---@param write_fd integer
---@return fork_map.core.Link?
---@return string? message
---@return string? name
function core.link(read_fd, write_fd) end

---A new pair of sockets: one end, and the descriptor of the other.
---@return fork_map.core.Link?
---@return integer|string fd or message
---@return string? name
function core.link_pair() end

---@param link fork_map.core.Link
---@return integer? read_fd nil when it is closed
---@return integer? write_fd
function core.link_fds(link) end

---Send a frame of values; what is on its way goes first.
---@param link fork_map.core.Link
---@param data string
---@param format integer
---@return "sent"|"begun"|"again"|nil state "begun": some of it went, "again": nothing did
---@return string? message
---@return string? name
function core.link_send(link, data, format) end

---@param link fork_map.core.Link
---@param held fork_map.core.Held
---@return "sent"|"begun"|"again"|nil state
---@return string? message
---@return string? name
function core.link_send_fd(link, held) end

---@param link fork_map.core.Link
---@return boolean? done nothing is on its way any more
---@return string? message
---@return string? name
function core.link_flush(link) end

---@param link fork_map.core.Link
---@return string|false|nil data false: not all of it is there
---@return integer|string|nil format or message
---@return string? name
function core.link_recv(link) end

---@param link fork_map.core.Link
---@return integer|false|nil fd false: not all of it is there
---@return string? message
---@return string? name
function core.link_recv_fd(link) end

---What came that is no frame, or is not yet one, and some of what comes after it; of
---one that is of no more use.
---@param link fork_map.core.Link
---@return string
function core.link_heard(link) end

---@param link fork_map.core.Link
function core.link_close(link) end

---@class fork_map.core.Held: userdata

---A copy of a descriptor that lives until it is closed or collected.
---@param fd integer
---@return fork_map.core.Held?
---@return string? message
---@return string? name
function core.hold_fd(fd) end

---An ordinary copy of a descriptor, close-on-exec.
---@param fd integer
---@return integer?
---@return string? message
---@return string? name
function core.copy_fd(fd) end

---@param fd integer
function core.close_fd(fd) end

---@param file file*
---@return integer
function core.fileno(file) end

---A Lua file that closes the descriptor.
---@param fd integer
---@param mode string
---@return file*?
---@return string? message
---@return string? name
function core.file(fd, mode) end

---@type boolean whether this build has templates
core.has_templates = nil

-- --------------------------------------------------------------- templates

---@class fork_map.core.Template
---A process that forks for this one.

---A program serves; its last argument will be the number of a socket.
---@param engine fork_map.core.Engine
---@param options fork_map.core.Options
---@param argv string[]
---@return fork_map.core.Template
function core.template_exec(engine, options, argv) end

---A copy of this process that runs `fn()`.
---@param engine fork_map.core.Engine
---@param options fork_map.core.Options
---@param fn fun()
---@return fork_map.core.Template
function core.template_snapshot(engine, options, fn) end

---Another one, forked off `template`, where the job `kind` runs.
---@param engine fork_map.core.Engine
---@param options fork_map.core.Options
---@param template fork_map.core.Template
---@param kind integer
---@param bytes string
---@return fork_map.core.Template
function core.template_fork(engine, options, template, kind, bytes) end

---Have it carry out this, with copies of the descriptors; the last one has it leave.
---@param template fork_map.core.Template
---@param kind integer
---@param bytes string values by encode_args("lua", ...)
---@param is_last? boolean
---@param ... integer descriptors
---@return boolean? ok
---@return string? message
---@return string? name
function core.template_call(template, kind, bytes, is_last, ...) end

---Run a job in a process forked off it.
---@param template fork_map.core.Template
---@param options fork_map.core.Options
---@param cell table what next_settled() gives
---@param kind integer
---@param bytes string
---@param is_worker? boolean as hire()
---@return fork_map.core.Future
function core.template_spawn(template, options, cell, kind, bytes, is_worker) end

---@param template fork_map.core.Template
---@return "starting"|"ready"|"failed"|"closed"|"away" state
---@return boolean is_settled nothing is to come
---@return integer n commands that are not answered
function core.template_state(template) end

---@param template fork_map.core.Template
---@return fork_map.Error? why it has failed
function core.template_failure(template) end

---@param template fork_map.core.Template
---@return integer? pid
function core.template_pid(template) end

---When something has changed, next_settled() gives `entry`, once; nil: no more.
---@param template fork_map.core.Template
---@param entry? table
function core.template_watch(template, entry) end

---@param template fork_map.core.Template
---@param grace number
function core.template_close(template, grace) end

---In a template: carry out what its host asks for.  `call(kind, fds, values…)` gives
---whether to leave, `find(kind, values…)` the codec, function and arguments of a job.
---@param fd integer
---@param call function
---@param find function
---@return boolean? leaves false when the host is gone; nil, message, name on failure
---@return string? message
---@return string? name
function core.serve(fd, call, find) end

---@return integer? fd in a child that is to be a template
function core.server_socket() end

return core
