;; Looks for anything but zeros in memory it never wrote, and for anything but null in its table.
(component
  (core module $m
    (memory 64)
    (table 1000 funcref)
    ;; control
    (func (export "run") (result i32)
      (local $at i32)
      (if (i32.eq (memory.grow (i32.const 64)) (i32.const -1)) (then unreachable))
      (loop $bytes
        (if (i64.ne (i64.load (local.get $at)) (i64.const 0)) (then (return (i32.const 1))))
        (local.set $at (i32.add (local.get $at) (i32.const 8)))
        (br_if $bytes (i32.lt_u (local.get $at) (i32.mul (memory.size) (i32.const 65536)))))
      (local.set $at (i32.const 0))
      (loop $elements
        (if (i32.eqz (ref.is_null (table.get (local.get $at)))) (then (return (i32.const 1))))
        (local.set $at (i32.add (local.get $at) (i32.const 1)))
        (br_if $elements (i32.lt_u (local.get $at) (i32.const 1000))))
      i32.const 0)
  )
  (core instance $i (instantiate $m))
  (func $run (result (result)) (canon lift (core func $i "run")))
  (instance $exported (export "run" (func $run)))
  (export "wasi:cli/run@0.2.0" (instance $exported)))
