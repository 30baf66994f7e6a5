"""Weakenings that no test can notice, each with the reason (for `check_weakening.py`)."""

__all__ = ["EXPLAINED"]

EXPLAINED: dict[str, tuple[str, ...]] = {
    "of what has just the most bytes nothing is left to read, and how many files are stored at once is for memory": (
        "sealbus.agents.evidence.served_log._get: len(data) > DEFAULT_LIMITS.note_bytes [bound]",
        "sealbus.agents.evidence.served_log._copy_tiles: len(files) >= _KEPT [bound]",
    ),
    "of two notes of one checkpoint with as many cosigners either is as good": (
        "sealbus.agents.evidence.served_log._with_more_cosigners: len(had.cosigners) > len(signed.cosigners) [bound]",
    ),
    "no two decisions have one place, and the rule about sessions is tested where one log is verified": (
        "independent.verify_export.answers: before[leaf].place < verdict.place [bound]",
        "independent.verify_export.shown_by: one.context['sid'].startswith('standing-') [by case]",
    ),
    "infinite seconds from any time on are infinite: the clause spares the look at that time": (
        (
            "sealbus.bus.work.executor.ending.deadline_of: seconds == math.inf or (since := work.since) is None"
            " [seconds == math.inf dropped]"
        ),
    ),
    "what is stored at the very microsecond of its stream's creation is measured by that creation, whoever is asked": (
        "sealbus.bus.gate.opener._older_than_its_stream: arrival.stored < arrival.created [bound]",
    ),
    "spellings in base64 of the same bytes have one length, and differ in unused bits, never in the case of a letter": (
        "sealbus.agents.evidence.standing._parsed_action: b64encode(body).decode() != base64 [by prefix]",
        "sealbus.agents.evidence.standing._parsed_action: b64encode(body).decode() != base64 [by case]",
        "independent.verify_export.read_grant: base64.b64encode(granted).decode() == do['base64'] [by prefix]",
        "independent.verify_export.read_grant: base64.b64encode(granted).decode() == do['base64'] [by case]",
    ),
    "a code has small letters alone": (
        "sealbus.envelopes.export.tally.Tally.take_record: code == READ_AGAIN [by case]",
    ),
    "what is kept holds its session, so that no other session has its id meanwhile": (
        (
            "sealbus.agents.console.api.area_access.AreaAccess.check: seen is not None and seen.session is session"
            " and (seen.until > self._elapsed()) [seen.session is session dropped]"
        ),
    ),
    "a field's name is in small letters by then, as the server hands it on": (
        "sealbus.agents.console.pages.login.check_own_page: MARK not in request.headers [by case]",
    ),
    "an origin and a scheme are in small letters by then": (
        "sealbus.agents.console.pages.login.BrowserLogin.__init__: origin.startswith('https:') [by case]",
        "sealbus.agents.edge.a2a.webhook.Webhooks._address: parts.scheme == 'https' [by case]",
    ),
    "what is kept is that of one session, which is asked beside the key": (
        "sealbus.agents.console.api.area_access.AreaAccess.check: (id(session), area, item) [without id(session)]",
    ),
    "of the two clauses each refuses what the other does": (
        (
            "sealbus.envelopes.log.note._ed25519: material[:1] != _ED25519 or len(material) != 1 + KEY_BYTES [len(material)"
            " != 1 + KEY_BYTES dropped]"
        ),
        (
            "sealbus.bus.work.approvals.parked_tasks.parse_parked: len(tokens) != _SUBJECT_TOKENS or (queue,"
            " digest) != (parked.obligation.queue, parked.digest) [len(tokens) != _SUBJECT_TOKENS dropped]"
        ),
        (
            "sealbus.envelopes.trust.keys.PublicKey.__post_init__: type(self.raw) is not bytes or len(self.raw)"
            " != 64 [len(self.raw) != 64 dropped]"
        ),
        (
            "sealbus.bus.work.approvals.parking.Parking._can_park: decision is None or decision.allow is not"
            " False or decided.error is not None or (not decision.obligations) [decision.allow is not False dropped]"
        ),
        (
            "sealbus.bus.work.approvals.parking.Parking._can_park: decision is None or decision.allow is not"
            " False or decided.error is not None or (not decision.obligations) [not decision.obligations dropped]"
        ),
        (
            "sealbus.agents.evidence.approvals.ApprovalChains._fault_of: verdict.fault or _other_than_said(entry"
            ", verdict) or _not_for(approved, verdict.message) [verdict.fault dropped]"
        ),
        (
            "sealbus.agents.control.callout.nkeys._decode: _crc(raw[:-2]) != raw[-2:] or _encode(raw[:-2]) != tex"
            "t [_crc(raw[:-2]) != raw[-2:] dropped]"
        ),
        "sealbus.agents.control.callout.nkeys._decode: _crc(raw[:-2]) != raw[-2:] [by prefix]",
    ),
    "the box refuses what is too short itself": (
        (
            "sealbus.agents.control.callout.nkeys.CurveKey.open: len(sealed) < _SEALED_LEAST or not sealed.starts"
            "with(_XKEY_VERSION) [len(sealed) < _SEALED_LEAST dropped]"
        ),
    ),
    "one more or less is remembered": (
        "sealbus.agents.console.api.area_access.AreaAccess.check: len(self._seen) > KEPT [bound]",
    ),
    "a provider of tests is on loopback, without TLS": (
        (
            "sealbus.agents.console.pages.login.BrowserLogin.__init__: tls or ssl.create_default_context() [ssl.create_"
            "default_context() dropped]"
        ),
        "sealbus.agents.console.pages.login.BrowserLogin.__init__: tls or ssl.create_default_context() [tls dropped]",
    ),
    "a session is renewed a moment earlier or later": (
        "sealbus.agents.console.pages.login.BrowserLogin.renew: session.tokens.expires <= now + FRESH [bound]",
        "sealbus.agents.console.pages.login.BrowserLogin.renew: session.renew_after <= now [bound]",
    ),
    "base32 itself refuses it: what is not ASCII, or in small letters": (
        (
            "sealbus.agents.control.callout.nkeys._decode: len(text) != length or not text.isascii() [not te"
            "xt.isascii() dropped]"
        ),
        "sealbus.agents.control.callout.nkeys._decode: _encode(raw[:-2]) != text [by case]",
    ),
    "both texts are of one length": (
        "sealbus.agents.control.callout.nkeys._decode: _encode(raw[:-2]) != text [by prefix]",
    ),
    "one byte more or less of what has no other end": (
        "independent.verify_export.read_vkey: len(name.encode()) <= 256 [bound]",
        "independent.verify_export.read_last: len(note) <= (8192 if root.policy is None else 131072) [bound]",
        "sealbus.agents.control.revoker._crowding: most <= 0 [bound]",
        "sealbus.agents.control.revoker._crowding: its * size > most * text [bound]",
        "sealbus.agents.control.callout.nkeys.decode_jwt: len(token) > JWT_BYTES [bound]",
    ),
    "it decides only whether the same is logged again": (
        "sealbus.agents.control.callout.policy.follow_bucket: error.detail != logged [by prefix]",
        "sealbus.agents.control.callout.policy.follow_bucket: error.detail != logged [by case]",
        "sealbus.agents.control.revoker.Revoker._tried: problem != self.problem [by prefix]",
        "sealbus.agents.control.revoker.Revoker._tried: problem != self.problem [by case]",
        "sealbus.agents.edge.http.tls.ListenerFiles.context: error.detail != self._reported [by prefix]",
        "sealbus.agents.edge.http.tls.ListenerFiles.context: error.detail != self._reported [by case]",
    ),
    "it is in small letters on both sides by then": (
        (
            "sealbus.agents.edge.http.bodies.media_type: request.headers.get('content-encoding', 'identity')"
            ".strip().lower() != 'identity' [by case]"
        ),
        "sealbus.agents.edge.http.bodies.media_type: match[1] not in allowed [by case]",
        "sealbus.agents.edge.http.peer.peer_of: spiffe_id.trust_domain != trust_domain [by case]",
    ),
    "both refuse it, with another text": (
        "sealbus.agents.edge.http.cors.Cors.__post_init__: origin == '*' [by prefix]",
        "sealbus.agents.edge.http.cors.Cors.__post_init__: origin == '*' [by case]",
    ),
    "hashes and points: two that agree in all but their last byte are found by nobody": (
        "sealbus.agents.evidence.fsck._check_prefix: tree.root(known.size) != known.root [by prefix]",
        "sealbus.agents.evidence.fsck._TileCheck._accept: _root(stored) == expected [by prefix]",
        "sealbus.agents.evidence.fsck._TileCheck._accept: _root(rebuilt) == expected [by prefix]",
        "sealbus.agents.evidence.fsck._TileCheck._check_entries: _leaves(stored, name.width) != data [by prefix]",
        "sealbus.agents.evidence.served_log._copy_tiles: tree.root() != checkpoint.root [by prefix]",
        (
            "sealbus.agents.evidence.served_log._check_prefix: TiledTree(last.size,"
            " tile_reader(store.get)).root(cosigned.size) != cosigned.root [by prefix]"
        ),
        "sealbus.agents.control.notary.restored_stream.Restorations.read: known.entry.hash != entry [by prefix]",
        (
            "sealbus.agents.control.revoker.Revoker._publish: key_id(self._key.public) not in"
            " stored.revokers [by prefix]"
        ),
        ("sealbus.agents.control.revoker.Revoker._publish: key_id(self._key.public) not in stored.revokers [by case]"),
        ("sealbus.agents.control.revoker.Revoker._fitting: stored.signer != key_id(self._key.public) [by prefix]"),
        ("sealbus.agents.control.revoker.Revoker._fitting: stored.signer != key_id(self._key.public) [by case]"),
        "sealbus.agents.control.revoker.Revoker._read: newest.signer not in revokers [by prefix]",
        "sealbus.agents.control.revoker.Revoker._read: newest.signer not in revokers [by case]",
        "sealbus.agents.control.policy_server.Served.put: etag == self.etag [by prefix]",
        "sealbus.agents.control.policy_server.Served.put: etag == self.etag [by case]",
        "sealbus.agents.control.policy_server.Served.other_than: self.etag != etag [by prefix]",
        "sealbus.agents.control.policy_server.Served.other_than: self.etag != etag [by case]",
        "sealbus.agents.control.policy_server.Served.other_than: self.etag == etag [by prefix]",
        "sealbus.agents.control.policy_server.Served.other_than: self.etag == etag [by case]",
        "sealbus.agents.control.policy_server.PolicyApplication._bundle: known == served.etag [by prefix]",
        "sealbus.agents.control.policy_server.PolicyApplication._bundle: known == served.etag [by case]",
        "independent.verify_export.read_evidence: H(first) not in there [by prefix]",
        "independent.verify_export.answers: leaf in before [by prefix]",
        "independent.verify_export.check_entry: leaf not in decisions [by prefix]",
        "independent.verify_export.read_evidence: H(second) not in audit.credentials [by prefix]",
        "independent.verify_export.check_asked: denial.message == one.message [by prefix]",
        "independent.verify_export.Grants.take: before.message != granted.message [by prefix]",
        "independent.verify_export.Grants.check_used: began['dig'] == H(do['body']) [by prefix]",
        "sealbus.agents.edge.oauth.tokens.kept_tokens.KeptTokens.keep: last_digest == digest [by prefix]",
        "sealbus.envelopes.accept.open_request.OpenRequest.check: header.key.raw != self._key [by prefix]",
        (
            "sealbus.bus.work.approvals.progress.ParkedProgress.is_first_of_its_key:"
            " note.keys.octets('dig') == message.header.digest [by prefix]"
        ),
        "sealbus.envelopes.records.body.parse_audit_body: leaf not in by_leaf [by prefix]",
        "sealbus.envelopes.trust.credential._is_of: claim.key.raw == svid.raw_key [by prefix]",
        "sealbus.envelopes.records.body._put: name in sort [by prefix]",
        "sealbus.envelopes.trust.bundles.BundleKey.is_same: self.digest == other.digest [by prefix]",
        "sealbus.envelopes.export.entries.EntryReader._read_records: name not in self.names [by prefix]",
        "sealbus.envelopes.export.entries.EntryReader._read_records: name in self._only [by prefix]",
        "sealbus.envelopes.export.tally.RepeatedRecords.repeated_by_tile: name in seen [by prefix]",
        "sealbus.bus.work.idempotency.replay_guard.ReplayGuard.used: digest not in slot.uses [by prefix]",
        "sealbus.bus.work.idempotency.replay_guard.ReplayGuard.used: digest in slot.uses [by prefix]",
        "sealbus.bus.gate.resumption.Resumption.take: digest in self.under_way [by prefix]",
        (
            "sealbus.bus.gate.approval_authorizer.ApprovalAuthorizer.authorize: decision.opened.message.header.digest"
            " not in self._under_way [by prefix]"
        ),
        ("sealbus.envelopes.export.trust.pinned_bundles: sha256(record.jwt).digest() in root.bundles [by prefix]"),
    ),
    "it is kept under its recorder, and looked for under who minted, who then is another": (
        "independent.verify_export.Grants.take: header['iss'] == one.recorder [by prefix]",
        "independent.verify_export.Grants.take: header['iss'] == one.recorder [by path]",
        "independent.verify_export.Grants.take: header['iss'] == one.recorder [by case]",
    ),
    "kinds, and keys of headers, contexts and records, are those of tables, in which no other is like it": (
        "independent.verify_export.Grants.take: 'par' not in header [by prefix]",
        "independent.verify_export.Grants.take: 'par' not in header [by case]",
        "independent.verify_export.Grants.take: header['t'] == 'task' [by prefix]",
        "independent.verify_export.Grants.take: header['t'] == 'task' [by case]",
        "independent.verify_export.Grants.take: {'sto', 'bdy'} <= set(one.record) [bound]",
        "independent.verify_export.Grants.check_used: began['t'] == 'task' [by prefix]",
        "independent.verify_export.Grants.check_used: began['t'] == 'task' [by case]",
        "independent.verify_export.Grants.check_used: 're' in began [by prefix]",
        "independent.verify_export.Grants.check_used: 're' in began [by case]",
        "independent.verify_export.read_grant: 'aut' in context [by prefix]",
        "independent.verify_export.read_grant: 'aut' in context [by case]",
    ),
    "who sent it has minted its context, and minters are of the one trust domain that the recorder is of": (
        "sealbus.envelopes.export.standing._statement: header.iss != recorder [by path]",
    ),
    "a marker of the same time is the one that is there, and is not written again": (
        "sealbus.bus.gate.resumption._ParkedSource.may_run: max(end, self._site.bus_clock()) > parked.until [bound]",
        "sealbus.bus.work.approvals.progress.ParkedProgress.count_verdict: until > parked.until [bound]",
    ),
    "it is looked for once more, and nothing is there": (
        "sealbus.bus.work.approvals.parking.Parking.park: delivery.number > 1 [bound]",
    ),
    "one byte more or less of what people are asked is bounded again where the question about it is made": (
        "sealbus.bus.gate.resumption._ParkedSource.mark: len(decided.input_document) <= INPUT_BYTES [bound]",
    ),
    "its requester looks at the same moment, and finds it expired either way": (
        (
            "sealbus.bus.work.approvals.parking.Parking._can_park:"
            " _waits_until(decided.opened.message.header) <= self._site.bus_clock() [bound]"
        ),
    ),
    "what is remembered under a hash is compared with bytes of that hash": (
        "sealbus.envelopes.message.user_context.parsed_context: cached.payload == payload [by prefix]",
        "sealbus.envelopes.message.chain.parsed_ancestor: cached.header.raw == raw [by prefix]",
        "sealbus.envelopes.message.chain._find: cached.header.raw == ancestor.header [by prefix]",
        "sealbus.envelopes.message.user_context.verify_context: cached.payload == statement.payload [by prefix]",
        "sealbus.envelopes.trust.credential._is_of: credential.token == svid.token [by prefix]",
    ),
    "it is one of a closed set by then, none of which is like another": (
        ("sealbus.agents.edge.a2a.handler.AgentHandler.on_message_send: described.action.kind == 'call' [by prefix]"),
        ("sealbus.agents.edge.a2a.handler.AgentHandler.on_message_send: described.action.kind == 'call' [by case]"),
        (
            "sealbus.agents.edge.a2a.handler.AgentHandler.on_message_send_stream: described.action.kind =="
            " 'call' [by prefix]"
        ),
        (
            "sealbus.agents.edge.a2a.handler.AgentHandler.on_message_send_stream: described.action.kind =="
            " 'call' [by case]"
        ),
        ("sealbus.agents.edge.mcp.tool_calls.ToolCalls._call_tool: tool.described.action.kind == 'call' [by prefix]"),
        "sealbus.agents.edge.mcp.tool_calls.ToolCalls._call_tool: tool.described.action.kind == 'call' [by case]",
        "sealbus.agents.edge.http.bodies.read_body: typ == MSGPACK [by prefix]",
        "sealbus.agents.edge.http.bodies.read_body: typ == MSGPACK [by case]",
        "independent.verify_export.read_record: record['k'] == 'decision' [by prefix]",
        "independent.verify_export.read_record: record['k'] == 'decision' [by case]",
        "independent.verify_export.read_record: record['k'] not in TABLES [by case]",
        "independent.verify_export.read_record: record['k'] == 'outcome' [by prefix]",
        "independent.verify_export.read_record: record['k'] == 'outcome' [by case]",
        "independent.verify_export.read_record: key in ('v', 'k') [by prefix]",
        "independent.verify_export.read_record: key in ('v', 'k') [by case]",
        "independent.verify_export.read_record: 'cod' in record [by prefix]",
        "independent.verify_export.read_record: 'cod' in record [by case]",
        "independent.verify_export.read_record: 'cnt' not in record [by prefix]",
        "independent.verify_export.read_record: 'cnt' not in record [by case]",
        "independent.verify_export.check_decision: 'opn' not in keys [by prefix]",
        "independent.verify_export.check_decision: 'opn' not in keys [by case]",
        "independent.verify_export.check_decision: 'cod' in keys [by prefix]",
        "independent.verify_export.check_decision: 'cod' in keys [by case]",
        "independent.verify_export.check_decision: 'eng' in keys [by prefix]",
        "independent.verify_export.check_decision: 'eng' in keys [by case]",
        "independent.verify_export.check_decision: 'mic' in keys [by prefix]",
        "independent.verify_export.check_decision: 'mic' in keys [by case]",
        "independent.verify_export.check_decision: 'red' not in keys [by prefix]",
        "independent.verify_export.check_decision: 'red' not in keys [by case]",
        "independent.verify_export.check_decision: 'inp' in keys [by prefix]",
        "independent.verify_export.check_decision: 'inp' in keys [by case]",
        "independent.verify_export.check_decision: 'obl' in keys [by prefix]",
        "independent.verify_export.check_decision: 'obl' in keys [by case]",
        "independent.verify_export.check_decision: code != 'obligation_unknown' [by prefix]",
        "independent.verify_export.check_decision: code != 'obligation_unknown' [by case]",
        "independent.verify_export.read_evidence: sort == 'context' [by prefix]",
        "independent.verify_export.read_evidence: sort == 'context' [by case]",
        "independent.verify_export.check_credential: curve != 'RSA' [by prefix]",
        "independent.verify_export.check_credential: curve != 'RSA' [by case]",
        "independent.verify_export.check_credential: wanted == curve [by prefix]",
        "independent.verify_export.check_credential: wanted == curve [by case]",
        "independent.verify_export.check_credential: wanted in ('RS', 'PS') [by prefix]",
        "independent.verify_export.check_credential: wanted in ('RS', 'PS') [by case]",
        "independent.verify_export.check_context: 'ctx' not in header [by prefix]",
        "independent.verify_export.check_context: 'ctx' not in header [by case]",
        "independent.verify_export.check_chain: 'par' in child [by prefix]",
        "independent.verify_export.check_chain: 'par' in child [by case]",
        "independent.verify_export.check_chain: 'end' not in link [by prefix]",
        "independent.verify_export.check_chain: 'end' not in link [by case]",
        "independent.verify_export.check_chain: parent['t'] in ('task', 'call') [by prefix]",
        "independent.verify_export.check_chain: parent['t'] in ('task', 'call') [by case]",
        "sealbus.envelopes.message.user_context._typed: 'ten' in present [by prefix]",
        "sealbus.envelopes.message.user_context._typed: 'ten' in present [by case]",
        "sealbus.envelopes.message.user_context._typed: 'wkl' in present [by prefix]",
        "sealbus.envelopes.message.user_context._typed: 'wkl' in present [by case]",
        "sealbus.envelopes.message.user_context._typed: 'acr' in present [by prefix]",
        "sealbus.envelopes.message.user_context._typed: 'acr' in present [by case]",
        "sealbus.envelopes.message.user_context._typed: 'amr' in present [by prefix]",
        "sealbus.envelopes.message.user_context._typed: 'amr' in present [by case]",
        "sealbus.envelopes.message.user_context._typed: 'aut' in present [by prefix]",
        "sealbus.envelopes.message.user_context._typed: 'aut' in present [by case]",
        "sealbus.envelopes.message.user_context._typed: 'req' in present [by prefix]",
        "sealbus.envelopes.message.user_context._typed: 'req' in present [by case]",
        "sealbus.envelopes.message.user_context._typed: 'typ' in present [by prefix]",
        "sealbus.envelopes.message.user_context._typed: 'typ' in present [by case]",
        "sealbus.envelopes.message.user_context._typed: 'dom' in present [by prefix]",
        "sealbus.envelopes.message.user_context._typed: 'dom' in present [by case]",
        "independent.verify_export.read_context: 'dom' in value [by prefix]",
        "independent.verify_export.read_context: 'dom' in value [by case]",
        "sealbus.agents.edge.egress.api.OpenApi._sent: request.method in _BODILESS [by prefix]",
        "sealbus.agents.edge.egress.api.OpenApi._sent: request.method in _BODILESS [by case]",
        "sealbus.envelopes.encoding.jws.check_fit: key.curve.name == algorithm.curve [by prefix]",
        "sealbus.envelopes.encoding.jws.check_fit: key.curve.name == algorithm.curve [by case]",
        ("sealbus.envelopes.export.entries.EntryReader._read_records: record.kind in NOTARY_KINDS [by prefix]"),
        ("sealbus.envelopes.export.entries.EntryReader._read_records: record.kind in NOTARY_KINDS [by case]"),
        "sealbus.envelopes.export.format.is_expected: name.level == 'places' [by prefix]",
        "sealbus.envelopes.export.format.is_expected: name.level == 'places' [by case]",
        "sealbus.envelopes.export.format.is_expected: name.level == 'entries' [by prefix]",
        "sealbus.envelopes.export.format.is_expected: name.level == 'entries' [by case]",
        "sealbus.envelopes.export.receipt.check_receipt: record.kind in NOTARY_KINDS [by prefix]",
        "sealbus.envelopes.export.receipt.check_receipt: record.kind in NOTARY_KINDS [by case]",
        "sealbus.envelopes.log.tiles.TileName.bytes: self.level == 'entries' [by prefix]",
        "sealbus.envelopes.log.tiles.TileName.bytes: self.level == 'entries' [by case]",
        "sealbus.envelopes.log.tiles.TileName.bytes: self.level == 'places' [by prefix]",
        "sealbus.envelopes.log.tiles.TileName.bytes: self.level == 'places' [by case]",
        "sealbus.envelopes.message.subjects.action_of: tokens[0] == 'task' [by prefix]",
        "sealbus.envelopes.message.subjects.action_of: tokens[0] == 'task' [by case]",
        "sealbus.envelopes.export.receipt._side: side == _LEFT [by prefix]",
        "sealbus.envelopes.export.receipt._side: side == _LEFT [by case]",
        "sealbus.envelopes.log.tiles.TileName.parse: level == 'entries' [by prefix]",
        "sealbus.envelopes.log.tiles.TileName.parse: level == 'entries' [by case]",
        "sealbus.envelopes.log.tiles.TileName.parse: level == 'places' [by prefix]",
        "sealbus.envelopes.log.tiles.TileName.parse: level == 'places' [by case]",
    ),
    "no encoding is the beginning of another, and two of one value differ in the byte that says the form, never the last": (
        "sealbus.envelopes.encoding.codec.unpack: pack(value) == data [by prefix]",
    ),
    "no two keys of a map are the same": ("sealbus.envelopes.encoding.codec._check_keys: key < last [bound]",),
    "the pattern lets no upper case through, and another spelling of a number begins with x000": (
        "sealbus.envelopes.export.format.is_expected: messages_path(index) == path [by prefix]",
        "sealbus.envelopes.export.format.is_expected: messages_path(index) == path [by case]",
        "sealbus.envelopes.log.tiles.TileName.parse: name.path != path [by case]",
    ),
    "the width is asked as well, and no tile has none": (
        (
            "sealbus.envelopes.export.format.is_expected: name.index * TILE_WIDTH < held and name.width =="
            " min(TILE_WIDTH, held - name.index * TILE_WIDTH) [name.index * TILE_WIDTH < held dropped]"
        ),
        "sealbus.envelopes.export.format.is_expected: name.index * TILE_WIDTH < held [bound]",
    ),
    "a path as long as that is no spelling of an index within 2^53": (
        "sealbus.envelopes.log.tiles.TileName.parse: len(path) <= DEFAULT_LIMITS.text_bytes [bound]",
    ),
    "it is asked again: to be more than the one before, and the first more than 0": (
        "sealbus.envelopes.export.receipt._check_earlier: 0 < earlier.size < checkpoint.size [bound at 0]",
    ),
    "no line of a message is like it, and who reads the line compares the whole word": (
        "sealbus.envelopes.export.receipt.RecordReceipt.parse: line.split(' ')[0] == _EARLIER [by prefix]",
        "sealbus.envelopes.export.receipt.RecordReceipt.parse: line.split(' ')[0] == _EARLIER [by case]",
    ),
    "of a proof each node is asked again by `check_proof`, with the same code; on a side there is one": (
        "sealbus.envelopes.export.receipt._nodes: any((len(node) != _HASH_BYTES for node in nodes)) [first only]",
        "sealbus.envelopes.export.receipt._nodes: any((len(node) != _HASH_BYTES for node in nodes)) [last only]",
    ),
    "a beginning in another case is not taken off then, and with it there is no number, base64 or key": (
        "sealbus.agents.control.witness.submission._parse_head: old.startswith(_OLD) [by case]",
        "sealbus.envelopes.log.cosignature.CosignatureSigner.parse: text.startswith(PRIVATE_KEY) [by case]",
        "sealbus.envelopes.log.note.NoteSigner.parse: text.startswith(PRIVATE_KEY) [by case]",
        "sealbus.envelopes.log.receipt.parse_receipt: lines[0].startswith(_EXTRA) [by case]",
        "sealbus.envelopes.log.receipt.parse_receipt: lines[0].startswith(_INDEX) [by case]",
    ),
    "a key without a type is refused as one of either kind": (
        (
            "sealbus.agents.control.witness.submission._verifier: material[:1] in [bytes([kind]) for kind in"
            " CosignatureType] [by prefix]"
        ),
    ),
    "a trust domain has no upper case": (
        "independent.verify_export.check_context: context['aud'] == root.trust_domain [by case]",
        "sealbus.envelopes.message.user_context.verify_context: context.aud.name != trust_domain.name [by case]",
        ("sealbus.envelopes.export.trust.pinned_bundles: record.trust_domain == root.names.trust_domain [by case]"),
    ),
    "OpenSSL refuses it as well; SPEC.md section 4 says it, so it stands where the other bounds do": (
        (
            "sealbus.envelopes.trust.keys.PublicKey.verify: len(signature) != 64 or not 1 <= r < _ORDER or (not"
            " 1 <= s <= _HALF_ORDER) [not 1 <= r < _ORDER dropped]"
        ),
        "sealbus.envelopes.trust.keys.PublicKey.verify: 1 <= r < _ORDER [bound at 1]",
        "sealbus.envelopes.trust.keys.PublicKey.verify: 1 <= r < _ORDER [bound at r]",
    ),
    "no other spelling of base64 differs in case alone: the unused bits of a letter lead to no letter in the other case": (
        "sealbus.envelopes.log.note.parse_base64: b64encode(data).decode('ascii') != text [by case]",
    ),
    "it is in lower case by then": (
        (
            "sealbus.agents.edge.oauth.tokens.access_token.AccessTokenVerifier._answered:"
            " claims.text('token_type').lower() not in _TOKEN_TYPES [by case]"
        ),
    ),
    "what was said is then compared with what is said about it, which is one of two": (
        "independent.verify_export.said_by: said['verdict'] in ('approve', 'deny', 'withdraw') [by prefix]",
        "independent.verify_export.said_by: said['verdict'] in ('approve', 'deny', 'withdraw') [by case]",
    ),
    "all digests have one length": (
        "independent.verify_export.check_verdict: verdict.message.hex() == given['message'] [by prefix]",
        "sealbus.bus.work.idempotency.replay_guard.ReplayGuard.use: digest in slot.uses [by prefix]",
    ),
    "a space is refused before, as white space": (
        "sealbus.envelopes.log.note.check_key_name: character < ' ' [bound]",
    ),
    "bytes of that length are no handle: its one SPIFFE ID and subject take less": (
        "sealbus.envelopes.accept.open_request.PendingRequest.parse: len(handle) > _HANDLE_BYTES [bound]",
    ),
    "base64url of another case is of other bytes, whose text has that case": (
        "sealbus.envelopes.accept.open_request.PendingRequest.from_text: request.to_text() != text [by case]",
    ),
    "bytes of that length are no stop: the parts of one take less": (
        "sealbus.bus.work.cancel.stop.parse: len(raw) <= PARTS * _BYTES [bound]",
    ),
    "each is one character": (
        "sealbus.agents.control.callout.permissions._where: prefix == '*' [by case]",
        "sealbus.envelopes.log.note._check_characters: character != '\\n' [by prefix]",
        "sealbus.envelopes.message.subjects._fits: rest[0] != '_' [by prefix]",
        "sealbus.envelopes.message.subjects._fits: rest[0] != '_' [by case]",
    ),
    "no token but this one begins with it": (
        "sealbus.envelopes.message.subjects.matches: token == '>' [by prefix]",
        "sealbus.envelopes.message.subjects.matches: token == '>' [by case]",
    ),
    "the length is asked as well": ("sealbus.envelopes.export.trust_root._digest: digest.hex() != text [by prefix]",),
    "such a time is refused all the same, as one that lies in the future or as a life too long": (
        "sealbus.envelopes.trust.credential._seconds: 0 <= value <= DEFAULT_LIMITS.max_integer [bound at value]",
    ),
    "asked first to save searching what is too long; the bytes are counted after it": (
        (
            "sealbus.envelopes.encoding.codec.is_text: len(text) <= limit and (not"
            " _REFUSED_IN_TEXT.search(text)) and (len(text.encode()) <= limit) [len(text) <= limit dropped]"
        ),
        (
            "sealbus.envelopes.log.note.check_key_name: not name or len(name) > DEFAULT_LIMITS.log_name_bytes or"
            " '+' in name [len(name) > DEFAULT_LIMITS.log_name_bytes dropped]"
        ),
        "sealbus.envelopes.encoding.codec.is_text: len(text) <= limit [bound]",
    ),
    "the whole of it is compared in the second pass; here it only saves looking into other messages": (
        "sealbus.envelopes.export.trust.NotaryMessages.read: header.iss in self._notaries [by path]",
        "sealbus.envelopes.export.trust.NotaryMessages.read: header.iss in self._notaries [by case]",
    ),
    "a reader bounds it as well; this is about what we write": (
        "sealbus.envelopes.message.user_context.mint_context: len(payload) > DEFAULT_LIMITS.context_bytes [bound]",
    ),
    "a code has no upper case": (
        "independent.verify_export.check_decision: code in ANSWERED [by case]",
        "independent.verify_export.check_decision: code in NOT_ASKED [by case]",
    ),
    "every record has the keys that say its kind as well": (
        "independent.verify_export.check_decision: {'inp', 'rev', 'pol', 'eng', 'mic'} <= keys [bound]",
    ),
    "a child is made before it ends, and ends no later than its parent": (
        (
            "independent.verify_export.check_chain: parent['iat'] - 5 * SECOND <= child['iat'] < parent['end']"
            " [bound at child['iat']]"
        ),
    ),
    "no child ends after its parent: the message itself ends first": (
        "independent.verify_export.check_chain: for link in (header, *(one[0] for one in links)) [first only]",
    ),
    "it is asked where a long way round is needed, and never says how deep it is": (
        "sealbus.envelopes.encoding.strict_json.deeper_than: text.count('[') + text.count('{') <= depth [bound]",
        "sealbus.envelopes.encoding.strict_json.deeper_than: len(text) <= _ONE_RUN [bound]",
    ),
    "a kind or a key of a set that was compared whole before, none of which is like another": (
        "independent.verify_export.jws_ok: curve != 'RSA' [by prefix]",
        "independent.verify_export.jws_ok: curve != 'RSA' [by case]",
        "independent.verify_export.jws_ok: alg.startswith('RS') [by case]",
        "independent.verify_export.read_header: 'end' in header [by prefix]",
        "independent.verify_export.read_header: 'end' in header [by case]",
        "independent.verify_export.read_header: header['t'] == 'record' [by prefix]",
        "independent.verify_export.read_header: header['t'] == 'record' [by case]",
        "independent.verify_export.open_record: header['t'] == 'record' [by prefix]",
        "independent.verify_export.open_record: header['t'] == 'record' [by case]",
        "independent.verify_export.check_decided: 'opn' in record [by prefix]",
        "independent.verify_export.check_decided: 'opn' in record [by case]",
        "independent.verify_export.check_decided: 'bdy' not in record [by prefix]",
        "independent.verify_export.check_decided: 'bdy' not in record [by case]",
        "independent.verify_export.named_policies: record['k'] == 'policy' [by prefix]",
        "independent.verify_export.named_policies: record['k'] == 'policy' [by case]",
        "independent.verify_export.collect_bundles: one['k'] == 'bundle' [by prefix]",
        "independent.verify_export.collect_bundles: one['k'] == 'bundle' [by case]",
        "independent.verify_export.check_entry: record['k'] == 'decision' [by prefix]",
        "independent.verify_export.check_entry: record['k'] == 'decision' [by case]",
        "independent.verify_export.check_entry: record['k'] in ('bundle', 'policy', 'checkpoint') [by prefix]",
        "independent.verify_export.check_entry: record['k'] in ('bundle', 'policy', 'checkpoint') [by case]",
        "independent.verify_export.check_entry: record['k'] == 'checkpoint' [by prefix]",
        "independent.verify_export.check_entry: record['k'] == 'checkpoint' [by case]",
        "independent.verify_export.check_entry: record['k'] == 'decision' [by prefix] (2)",
        "independent.verify_export.check_entry: record['k'] == 'decision' [by case] (2)",
        "independent.verify_export.check_verdict: 'max_age' in asked [by prefix]",
        "independent.verify_export.check_verdict: 'max_age' in asked [by case]",
        "independent.verify_export.check_verdict: 'sto' in verdict.record [by prefix]",
        "independent.verify_export.check_verdict: 'sto' in verdict.record [by case]",
        "independent.verify_export.check_verdict: 'par' not in header [by prefix]",
        "independent.verify_export.check_verdict: 'par' not in header [by case]",
        "independent.verify_export.check_verdict: 'aut' in context [by prefix]",
        "independent.verify_export.check_verdict: 'aut' in context [by case]",
        "independent.verify_export.check_asked: 'obl' in denial.record [by prefix]",
        "independent.verify_export.check_asked: 'obl' in denial.record [by case]",
        "independent.verify_export.check_verdict: said == given['verdict'] [by prefix]",
        "independent.verify_export.check_verdict: said == given['verdict'] [by case]",
    ),
    "among keys the whole of each is looked for, weaker or not": (
        "independent.verify_export.read_note: known[0] not in seen [by prefix]",
        "independent.verify_export.read_note: known[0] not in seen [by case]",
    ),
    "among bytes the whole of each is looked for, weaker or not": (
        "independent.verify_export.pinned: H(record['jwt']) in root.bundles [by prefix]",
        "independent.verify_export.check_unproved: header_hash(frame) not in proved [by prefix]",
        "independent.verify_export.check_entry: leaf not in seen [by prefix]",
        "independent.verify_export.check_entry: leaf not in seen [by prefix] (2)",
    ),
    "the name is made of a hash as well, always of one length and in lower case": (
        "independent.verify_export.check_files: name == f'policies/{H(data).hex()}.tar.gz' [by prefix]",
        "independent.verify_export.check_files: name == f'policies/{H(data).hex()}.tar.gz' [by case]",
    ),
    "base64 of one value in another case is that of another value": (
        "independent.verify_export.read_vkey: base64.b64encode(data).decode() == encoded [by case]",
        "independent.verify_export.canonical64: base64.b64encode(data).decode() == text [by case]",
    ),
    "a file is missing either way, and that is found": (
        "independent.verify_export.verify: checkpoint.size > 256 * (len(files) + 1) [bound]",
    ),
    "OpenSSL refuses such an r as well": (
        "independent.verify_export.es256: 1 <= r < ORDER [bound at 1]",
        "independent.verify_export.es256: 1 <= r < ORDER [bound at r]",
    ),
    "header, body, proof and token within their limits are never as long as that": (
        "independent.verify_export.read_envelope: len(payload) <= 1048576 [bound]",
    ),
    "a bundle of another trust domain opens no message of this one's notary, and none has upper case": (
        "independent.verify_export.pinned: record['dom'] == root.trust_domain [by prefix]",
        "independent.verify_export.pinned: record['dom'] == root.trust_domain [by case]",
    ),
    "both are in lower case, or have no letters, by then": (
        "independent.verify_export.check_verdict: verdict.message.hex() == given['message'] [by case]",
        "sealbus.agents.edge.egress.api.OpenApi._sent: small not in _SENT | self.api.passed [by case]",
        "sealbus.agents.edge.egress.api.OpenApi._sent: small in fields [by case]",
        "sealbus.agents.edge.egress.api.OpenApi._answered: name in passed [by case]",
        "sealbus.agents.edge.egress.outside_tools._messages: kind != 'text/event-stream' [by case]",
        (
            "sealbus.agents.edge.egress.api._body: response.headers.get('content-encoding', 'identity').lower()"
            " != 'identity' [by case]"
        ),
        (
            "sealbus.agents.edge.egress.credential.AuthorizationServer.token: word in"
            " {'invalid_grant', 'invalid_token', 'invalid_request'} [by case]"
        ),
        (
            "sealbus.agents.edge.egress.credential.AuthorizationServer._token_endpoint:"
            " self.issuer.startswith('http:') [by case]"
        ),
        "sealbus.agents.edge.egress.credential._issued: kind.lower() != 'bearer' [by case]",
        "sealbus.agents.edge.egress.operation._decoded: value in {'.', '..'} [by case]",
    ),
    "the leaf is verified against the bundle itself then: a root that is nearly one of it has signed nothing": (
        (
            "sealbus.agents.control.callout.peer.verify_peer: chain[-1].public_bytes(Encoding.DER) in anchors"
            " [by prefix]"
        ),
    ),
    "it is one moment of a clock that never stands still": (
        (
            "sealbus.agents.control.callout.responder.Callout.answer: asyncio.get_running_loop().time() >"
            " asking.arrived + within [bound]"
        ),
        "sealbus.agents.control.notary.lease.Lease.acquire: now - since >= self._seconds [bound]",
    ),
    "both are public nkeys by then: of one length, and in upper case": (
        "sealbus.agents.control.callout.responder.Callout._request: request.server_xkey != sender [by prefix]",
        "sealbus.agents.control.callout.responder.Callout._request: request.server_xkey != sender [by case]",
        "sealbus.agents.control.callout.responder.SeenRequests.take_request: user in self._expiries [by prefix]",
        "sealbus.agents.control.callout.responder.SeenRequests.take_request: user in self._expiries [by case]",
    ),
    "no value of that length can be decoded, or is as long": (
        "sealbus.agents.control.notary.lease.Lease._read: 0 < len(stored) <= _BYTES [bound at 0]",
        "sealbus.agents.control.notary.lease.Lease._read: 0 < len(stored) <= _BYTES [bound at len(stored)]",
    ),
    "it decides only how often one looks who waits": (
        "sealbus.agents.control.notary.lease.Lease.acquire: min(_POLL, self._seconds / 4) [max]",
    ),
    "it is the restoration's own entry, whose sequence is the last that the stream holds": (
        "sealbus.agents.control.notary.restored_stream.Restorations.is_gone: number < at [bound]",
    ),
    "both begin with the same folder, and the rest has no letters": (
        "sealbus.agents.control.notary.restored_stream._stored: restoration_path(restoration.time) != path [by case]",
    ),
    "the actions of its own agent are all skills, and those of another begin with that one's name and a dot": (
        (
            "sealbus.agents.edge.a2a.handler.AgentHandler._owned_task: handle.action not in self._skills.actions [by prefix]"
        ),
        (
            "sealbus.agents.edge.a2a.handler.AgentHandler._owned_task: handle.action not in self._skills.actions [by case]"
        ),
    ),
    "the first status of a task says that it has begun, and is no part": (
        "sealbus.agents.edge.a2a.handler.AgentHandler._updates: after >= 0 [bound]",
    ),
    "who asks for another is told at once there": (
        (
            "sealbus.agents.control.policy_server.PolicyApplication._bundle: known == served.etag and (not"
            " await served.other_than(known, _patience(request.headers.get('prefer', '')))) [known =="
            " served.etag dropped]"
        ),
    ),
    "it only saves a look where nothing is": (
        (
            "sealbus.bus.work.approvals.parking.Parking.park: self._stops.suspects(message) and (stored :="
            " (await self._stores.tasks.find(parked.digest))) [self._stops.suspects(message) dropped]"
        ),
    ),
    "it only spares the whole comparison after it": (
        (
            "sealbus.envelopes.accept.live.accept_live: header.aud is not profile.own and header.aud is not None"
            " and (header.aud != profile.own) [header.aud is not profile.own dropped]"
        ),
        (
            "sealbus.envelopes.message.chain._check_pair: child.iss is not parent.aud and child.iss !="
            " parent.aud [child.iss is not parent.aud dropped]"
        ),
        (
            "sealbus.envelopes.trust.bundles.BundleKey.is_same: self is other or self.digest == other.digest"
            " [self is other dropped]"
        ),
        (
            "sealbus.envelopes.trust.credential.verify_credential: trust.revoked_before and verified.iat <"
            " trust.revoked_before.get(claim.iss, 0) [trust.revoked_before dropped]"
        ),
        (
            "sealbus.envelopes.export.approvals.approval_facts_of: record.redacted and any(map(covers_approvals,"
            " record.redacted)) [record.redacted dropped]"
        ),
        (
            "sealbus.envelopes.export.approvals.approval_facts_of: not _names_no_approval(record.input or b'') and"
            " _CONTROL.fullmatch(header.to) is None [not _names_no_approval(record.input or b'') dropped]"
        ),
        (
            "sealbus.envelopes.export.trust.NotaryMessages.read: frame.kind is not EntryKind.VERIFIED or not"
            " any((notary in head for notary in self._ids)) [not any((notary in head for notary in self._ids)) dropped]"
        ),
    ),
    "a call has no statuses, and a task nothing else; only chunks and statuses have a number": (
        (
            "sealbus.envelopes.accept.open_request.OpenRequest.check: header.kind is Kind.STATUS and (not"
            " header.fin) and (len(self._counted) >= STATUSES) [header.kind is Kind.STATUS dropped]"
        ),
        (
            "sealbus.envelopes.accept.open_request.OpenRequest.take: header.kind is Kind.STATUS and header.seq"
            " is not None [header.kind is Kind.STATUS dropped]"
        ),
    ),
    "it decides only whether the same is parsed again": (
        "sealbus.envelopes.message.user_context.parsed_context: caches.contexts.get of ctx [payload instead]",
    ),
    "it decides only whether the same files are read again": (
        "sealbus.agents.edge.http.tls.ListenerFiles.__init__: _stamp of certificate [key instead]",
        "sealbus.agents.edge.http.tls.ListenerFiles.__init__: _stamp of key [certificate instead]",
    ),
    "what another process has stored and told meanwhile stands: its marker holds, and no reader takes a status before it": (
        "sealbus.bus.work.approvals.parking.Parking.park: known or parked [known dropped]",
    ),
    "where nobody has more, the list fits as it did": (
        "sealbus.agents.control.revoker._crowding: more and most <= 0 [more dropped]",
    ),
}
"""Reasons why no test can notice a weakening, each with the weakenings, as they are reported."""
