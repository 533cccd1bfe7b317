;; Makes handles of a resource of its own, in the host's tables, without any host function in the loop.
(component
  (type $thing (resource (rep i32)))
  (core func $new (canon resource.new $thing))
  (core module $m
    (import "host" "new" (func $new (param i32) (result i32)))
    (func (export "run") (result i32)
      (local $left i32)
      ;; Without end, as far as anybody can wait.
      (local.set $left (i32.const -1))
      (loop $again
        (drop (call $new (i32.const 7)))
        (local.set $left (i32.sub (local.get $left) (i32.const 1)))
        (br_if $again (local.get $left)))
      i32.const 0))
  (core instance $i (instantiate $m (with "host" (instance (export "new" (func $new))))))
  (func $run (result (result)) (canon lift (core func $i "run")))
  (instance $exported (export "run" (func $run)))
  (export "wasi:cli/run@0.2.0" (instance $exported)))
